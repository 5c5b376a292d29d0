//! What can go wrong here, named as Neutron's clients know it, and the envelope they read.
//!
//! Clients (and Tempest) look at the status and at `NeutronError.type`; people read the message.
use pilvi_kit::Fault;
use serde_json::{Value, json};

/// `{"NeutronError": {"type", "message", "detail"}}`; 401 keeps the shape of the token filter in front.
pub fn shape(fault: &Fault, _request_id: &str) -> Value {
    if fault.code() == 401 {
        return json!({"error": {"code": 401, "title": "Unauthorized", "message": fault.message}});
    }
    let usual = match fault.code() {
        400 => "HTTPBadRequest",
        403 => "PolicyNotAuthorized",
        404 => "HTTPNotFound",
        405 => "HTTPMethodNotAllowed",
        409 => "Conflict",
        412 => "HTTPPreconditionFailed",
        413 => "HTTPRequestEntityTooLarge",
        503 => "ServiceUnavailable",
        _ => "HTTPInternalServerError",
    };
    let kind = if fault.kind.is_empty() { usual } else { fault.kind.as_ref() };
    let message = match fault.extra.get("rule").and_then(Value::as_str) {
        Some(rule) if kind == "PolicyNotAuthorized" => format!("rule:{rule} is disallowed by policy"),
        _ => fault.message.clone(),
    };
    json!({"NeutronError": {"type": kind, "message": message, "detail": ""}})
}

/// 400 `InvalidInput`: the value is well formed but cannot be meant.
pub fn invalid(reason: impl std::fmt::Display) -> Fault {
    Fault::bad_request(format!("Invalid input for operation: {reason}.")).kind("InvalidInput")
}

/// 400 with another of Neutron's type names.
pub fn bad(kind: &'static str, message: impl Into<String>) -> Fault {
    Fault::bad_request(message).kind(kind)
}

/// 409 with one of Neutron's type names.
pub fn conflict(kind: &'static str, message: impl Into<String>) -> Fault {
    Fault::conflict(message).kind(kind)
}

/// 404 for a resource by its label: `Network`, `Security group`, ...
pub fn missing(kind: &'static str, label: &str, id: &str) -> Fault {
    let message = match kind {
        "SecurityGroupNotFound" | "SecurityGroupRuleNotFound" => format!("{label} {id} does not exist"),
        _ => format!("{label} {id} could not be found."),
    };
    Fault::not_found(message).kind(kind)
}

/// 403 as a refused attribute or verb reads.
pub fn refused(rule: &str) -> Fault {
    Fault::forbidden(format!("rule:{rule} is disallowed by policy")).kind("PolicyNotAuthorized")
}

pub fn network_missing(id: &str) -> Fault {
    missing("NetworkNotFound", "Network", id)
}
pub fn subnet_missing(id: &str) -> Fault {
    missing("SubnetNotFound", "Subnet", id)
}
pub fn port_missing(id: &str) -> Fault {
    missing("PortNotFound", "Port", id)
}
pub fn router_missing(id: &str) -> Fault {
    missing("RouterNotFound", "Router", id)
}
pub fn group_missing(id: &str) -> Fault {
    missing("SecurityGroupNotFound", "Security group", id)
}

/// 409: the address is somebody else's.
pub fn address_in_use(network_id: &str, address: &str) -> Fault {
    conflict(
        "IpAddressInUse",
        format!("Unable to complete operation for network {network_id}. The IP address {address} is in use."),
    )
}

/// 409: the subnet (or all subnets of the network) has no free address.
pub fn no_address(network_id: &str) -> Fault {
    conflict("IpAddressGenerationFailure", format!("No more IP addresses available on network {network_id}."))
}

/// 400: the address is on none of the network's subnets.
pub fn address_off_network(address: &str) -> Fault {
    bad(
        "InvalidIpForNetwork",
        format!("IP address {address} is not a valid IP for any of the subnets on the specified network."),
    )
}

/// 409: a quota says no.
pub fn over_quota(resource: &str) -> Fault {
    conflict("OverQuota", format!("Quota exceeded for resources: ['{resource}']."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_carry_the_type_that_clients_switch_on() {
        let shown = shape(&network_missing("n"), "req");
        assert_eq!(shown["NeutronError"]["type"], "NetworkNotFound");
        assert_eq!(shown["NeutronError"]["message"], "Network n could not be found.");
        assert_eq!(shape(&Fault::bad_request("x"), "")["NeutronError"]["type"], "HTTPBadRequest");
        assert_eq!(shape(&Fault::unauthorized(), "")["error"]["code"], 401);
    }
}
