//! What a program may not do with what a user handed to it.
//!
//! A token from a trust or an application credential must not make further secrets, or a short-lived,
//! narrow permission could turn itself into a lasting, wide one.
use pilvi_kit::{Call, Fault};

fn refuse(what: &str) -> Fault {
    Fault::forbidden(format!("You are not authorized to perform the requested action: {what}."))
}

/// Methods by which a user himself logs in; whatever is not among them was handed on.
const PRIMARY: [&str; 7] = ["password", "token", "totp", "mapped", "openid", "saml2", "external"];

/// Does a token with these methods come from something that a user handed on?
pub(crate) fn is_delegated<'m>(methods: impl IntoIterator<Item = &'m str>) -> bool {
    let mut methods = methods.into_iter().peekable();
    methods.peek().is_none() || methods.any(|m| !PRIMARY.contains(&m))
}

/// 403 for tokens of trusts, application credentials, EC2 keys and the like.
pub(crate) fn primary_only(call: &Call) -> Result<(), Fault> {
    let caller = call.caller();
    let delegated = is_delegated(caller.methods.iter().map(String::as_str));
    if caller.trust_id.is_some() || caller.application_credential_id.is_some() || delegated {
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
    let by_key = caller.methods.iter().any(|m| m == "ec2credential" || m == "oauth1");
    if caller.trust_id.is_some() || by_key {
        return Err(refuse("Application credentials cannot be managed with a token that was issued via delegation"));
    }
    Ok(())
}
