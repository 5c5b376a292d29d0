//! What a program may not do with what a user handed to it.
//!
//! A token from a trust or an application credential must not make further secrets, or a short-lived,
//! narrow permission could turn itself into a lasting, wide one.
use pilvi_kit::{Call, Fault};

fn refuse(what: &str) -> Fault {
    Fault::forbidden(format!("You are not authorized to perform the requested action: {what}."))
}

/// 403 for tokens of trusts and of application credentials.
pub(crate) fn primary_only(call: &Call) -> Result<(), Fault> {
    let caller = call.caller();
    if caller.trust_id.is_some() || caller.application_credential_id.is_some() {
        return Err(refuse("Delegated tokens cannot access credentials directly"));
    }
    Ok(())
}

/// 403 for tokens of trusts, and of application credentials that are not unrestricted.
pub(crate) fn unrestricted(call: &Call) -> Result<(), Fault> {
    let caller = call.caller();
    if caller.application_credential_id.is_some() && !caller.unrestricted {
        return Err(refuse(
            "Using method 'application_credential' is not allowed for managing additional application credentials.",
        ));
    }
    if caller.trust_id.is_some() {
        return Err(refuse("Application credentials cannot be managed with a token that was issued via delegation"));
    }
    Ok(())
}
