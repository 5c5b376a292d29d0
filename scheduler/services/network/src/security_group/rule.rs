//! From what a client sent to a sound rule: protocol, ports, ICMP types and remotes agree. Pure.
use super::model::{SecurityGroup, SecurityGroupRule, has_ports, is_icmp, protocol_number};
use crate::{check, fault, list::Raw};
use pilvi_kit::Fault;
use serde_json::{Value, json};

/// Makes the rule or says with Neutron's fault name what does not fit.
pub fn build(attrs: &Raw, group: &SecurityGroup) -> Result<SecurityGroupRule, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    document.insert("belongs_to_default_sg".into(), json!(group.is_default));
    let rule: SecurityGroupRule = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    check(&rule)?;
    Ok(rule)
}

/// Do protocol, ports and remotes agree?
pub fn check(rule: &SecurityGroupRule) -> Result<(), Fault> {
    remotes(rule)?;
    ports(rule)
}

fn remotes(rule: &SecurityGroupRule) -> Result<(), Fault> {
    let remotes = [&rule.remote_group_id, &rule.remote_ip_prefix, &rule.remote_address_group_id];
    if remotes.iter().filter(|r| r.is_some()).count() > 1 {
        return Err(fault::bad(
            "SecurityGroupMultipleRemoteEntitiesRule",
            "Only one remote entity should be provided.",
        ));
    }
    let Some(prefix) = &rule.remote_ip_prefix else { return Ok(()) };
    if prefix.contains(':') != (rule.ethertype == "IPv6") {
        return Err(fault::bad(
            "SecurityGroupRuleParameterConflict",
            format!("Conflicting value ethertype {} for CIDR {prefix}", rule.ethertype),
        ));
    }
    Ok(())
}

fn ports(rule: &SecurityGroupRule) -> Result<(), Fault> {
    let (min, max) = (rule.port_range_min, rule.port_range_max);
    let Some(number) = rule.protocol_number() else {
        if min.is_some() || max.is_some() {
            return Err(fault::bad(
                "SecurityGroupProtocolRequiredWithPorts",
                "Must also specify protocol if port range is given.",
            ));
        }
        return Ok(());
    };
    let named = rule.protocol.as_deref().unwrap_or_default();
    if rule.ethertype == "IPv4" && matches!(number, 41 | 43 | 44 | 58 | 59 | 60) {
        return Err(fault::bad(
            "SecurityGroupEthertypeConflictWithProtocol",
            format!("Invalid ethertype IPv4 for protocol {named}."),
        ));
    }
    if is_icmp(number) {
        return icmp(min, max);
    }
    if (min.is_some() || max.is_some()) && !has_ports(number) {
        return Err(fault::bad(
            "SecurityGroupInvalidProtocolForPort",
            format!("Ports cannot be specified for protocol {named}."),
        ));
    }
    match (min, max) {
        (Some(min), Some(max)) if min > max => Err(fault::bad(
            "SecurityGroupInvalidPortRange",
            "For TCP/UDP protocols, port_range_min must be <= port_range_max",
        )),
        (None, Some(_)) => Err(fault::bad(
            "SecurityGroupInvalidPortRange",
            "For TCP/UDP protocols, port_range_min must be <= port_range_max",
        )),
        (Some(n), _) | (_, Some(n)) if n == 0 && matches!(number, 6 | 17) => {
            Err(fault::bad("SecurityGroupInvalidPortValue", "Invalid value for port 0."))
        }
        _ => Ok(()),
    }
}

fn icmp(kind: Option<i64>, code: Option<i64>) -> Result<(), Fault> {
    for (what, n) in [("type", kind), ("code", code)] {
        if let Some(n) = n
            && !(0..=255).contains(&n)
        {
            let field = if what == "type" { "port_range_min" } else { "port_range_max" };
            return Err(fault::bad(
                "SecurityGroupInvalidIcmpValue",
                format!("Invalid value for ICMP {what} ({field}) {n}. It must be 0 to 255."),
            ));
        }
    }
    if code.is_some() && kind.is_none() {
        return Err(fault::bad(
            "SecurityGroupMissingIcmpType",
            "ICMP code (port-range-max) is provided but ICMP type (port-range-min) is missing.",
        ));
    }
    Ok(())
}

pub fn check_direction(value: &Value) -> check::Checked {
    match value.as_str() {
        Some("ingress" | "egress") => Ok(value.clone()),
        _ => Err(format!("'{}' is not in ['ingress', 'egress']", check::plain(value))),
    }
}

pub fn check_ethertype(value: &Value) -> check::Checked {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("ipv4") => Ok(json!("IPv4")),
        Some("ipv6") => Ok(json!("IPv6")),
        _ => Err(format!("Ethertype '{}' is not supported: IPv4 or IPv6", check::plain(value))),
    }
}

/// A known name, or a number of 0..255; `any` and "" are none.
pub fn check_protocol(value: &Value) -> check::Checked {
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.to_ascii_lowercase(),
        other => return Err(format!("'{}' is not a protocol", check::plain(other))),
    };
    match text.as_str() {
        "" | "any" => Ok(Value::Null),
        known if protocol_number(known).is_some() => Ok(json!(known)),
        _ => Err(format!(
            "Security group rule protocol {} not supported: neither a known name nor 0 to 255",
            check::plain(value)
        )),
    }
}

pub fn check_port(value: &Value) -> check::Checked {
    if value.as_str() == Some("") {
        return Ok(Value::Null);
    }
    check::int_or_null::<0, 65535>(value).map_err(|_| format!("Invalid value for port {}", check::plain(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(extra: Value) -> String {
        let mut attrs = json!({"project_id": "p", "security_group_id": "g", "direction": "ingress", "ethertype": "IPv4",
            "description": "", "protocol": null, "port_range_min": null, "port_range_max": null,
            "remote_ip_prefix": null, "remote_group_id": null});
        for (k, v) in extra.as_object().unwrap() {
            attrs[k.as_str()] = v.clone();
        }
        let group = SecurityGroup {
            id: "g".into(),
            project_id: "p".into(),
            name: "g".into(),
            description: None,
            stateful: true,
            is_default: false,
            shared: false,
            shared_with: vec![],
            tags: vec![],
        };
        build(attrs.as_object().unwrap(), &group).err().map(|f| f.kind.into_owned()).unwrap_or_default()
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused_by_name() {
        assert_eq!(refusal(json!({"protocol": "tcp", "port_range_min": 80, "port_range_max": 80})), "");
        assert_eq!(
            refusal(json!({"port_range_min": 80, "port_range_max": 80})),
            "SecurityGroupProtocolRequiredWithPorts"
        );
        assert_eq!(
            refusal(json!({"protocol": "tcp", "port_range_min": 81, "port_range_max": 80})),
            "SecurityGroupInvalidPortRange"
        );
        assert_eq!(refusal(json!({"protocol": "icmp", "port_range_min": 256})), "SecurityGroupInvalidIcmpValue");
        assert_eq!(refusal(json!({"protocol": "icmp", "port_range_max": 1})), "SecurityGroupMissingIcmpType");
        assert_eq!(
            refusal(json!({"protocol": "gre", "port_range_min": 1, "port_range_max": 1})),
            "SecurityGroupInvalidProtocolForPort"
        );
        assert_eq!(refusal(json!({"remote_ip_prefix": "fd00::/8"})), "SecurityGroupRuleParameterConflict");
        assert_eq!(
            refusal(json!({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "x"})),
            "SecurityGroupMultipleRemoteEntitiesRule"
        );
        assert_eq!(refusal(json!({"protocol": "icmpv6"})), "SecurityGroupEthertypeConflictWithProtocol");
    }
}
