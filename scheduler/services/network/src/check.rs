//! Checks of single attribute values: each takes what a client sent and gives the value as it is kept.
//!
//! Neutron is lenient where clients are (a boolean may be the text "true", a number may be a text) and
//! strict elsewhere; the sentences are what its users grep for. Everything here is pure and bounded: no
//! list is taken longer than [`LIST_MAX`].
use crate::dns::model::KEYWORDS;
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Why a value is refused, for the user.
pub type Checked = Result<Value, String>;

/// What looks at one value.
pub type Check = fn(&Value) -> Checked;

/// For attributes that clients cannot send.
pub fn any(value: &Value) -> Checked {
    Ok(value.clone())
}

/// Attributes of features that this cloud lacks: only "none" can be said.
pub fn nothing(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { Err("this cloud does not offer it".to_owned()) }
}

/// Items that any list attribute may have.
pub const LIST_MAX: usize = 512;

pub fn text<const MAX: usize>(value: &Value) -> Checked {
    let Some(s) = value.as_str() else { return Err(format!("'{value}' is not a valid string")) };
    if s.chars().count() > MAX {
        return Err(format!("'{}...' exceeds maximum length of {MAX}", s.chars().take(32).collect::<String>()));
    }
    Ok(value.clone())
}

/// A name: also refuses text with white space at an end, or with what cannot be printed.
pub fn name(value: &Value) -> Checked {
    let checked = text::<255>(value)?;
    match checked.as_str() {
        Some(s) if !s.is_empty() && s.trim().is_empty() => Err(format!("'{s}' Blank strings are not permitted")),
        Some(s) if s.trim() != s || s.chars().any(char::is_control) => {
            Err(format!("'{}' is not a valid string", plain(value)))
        }
        _ => Ok(checked),
    }
}

pub fn filled_name(value: &Value) -> Checked {
    match value.as_str() {
        Some(s) if s.trim().is_empty() => Err("'' Blank strings are not permitted".to_owned()),
        _ => name(value),
    }
}

pub fn text_or_null<const MAX: usize>(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { text::<MAX>(value) }
}

pub fn name_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { name(value) }
}

pub fn boolean(value: &Value) -> Checked {
    let found = match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => match n.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    };
    found.map(Value::Bool).ok_or_else(|| format!("'{}' cannot be converted to boolean", plain(value)))
}

pub fn boolean_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { boolean(value) }
}

/// The value as a person would write it.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.chars().take(128).collect(),
        Value::Null => "None".to_owned(),
        other => other.to_string().chars().take(128).collect(),
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str().and_then(|s| s.trim().parse().ok()))
}

pub fn int<const MIN: i64, const MAX: i64>(value: &Value) -> Checked {
    let n = number(value).ok_or_else(|| format!("'{}' is not an integer", plain(value)))?;
    if n < MIN {
        return Err(format!("'{n}' is too small - must be at least '{MIN}'"));
    }
    if n > MAX {
        return Err(format!("'{n}' is too large - must be no larger than '{MAX}'"));
    }
    Ok(json!(n))
}

pub fn int_or_null<const MIN: i64, const MAX: i64>(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { int::<MIN, MAX>(value) }
}

pub fn ip_version(value: &Value) -> Checked {
    match number(value) {
        Some(n @ (4 | 6)) => Ok(json!(n)),
        _ => Err(format!("'{}' is not in [4, 6]", plain(value))),
    }
}

pub fn uuid(value: &Value) -> Checked {
    match value.as_str() {
        Some(s) if pilvi_kit::id::is_uuid(s) => Ok(value.clone()),
        _ => Err(format!("'{}' is not a valid UUID", plain(value))),
    }
}

pub fn uuid_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { uuid(value) }
}

/// `prefix_delegation` is a subnet pool of its own kind, which is not offered.
pub fn pool_or_null(value: &Value) -> Checked {
    if value.as_str() == Some(crate::delegation::model::POOL) {
        return Ok(value.clone());
    }
    uuid_or_null(value)
}

pub fn ip_text(s: &str) -> Result<IpAddr, String> {
    s.trim()
        .parse::<IpAddr>()
        .map_err(|_| format!("'{}' is not a valid IP address", s.chars().take(64).collect::<String>()))
}

pub fn ip(value: &Value) -> Checked {
    let s = value.as_str().ok_or_else(|| format!("'{}' is not a valid IP address", plain(value)))?;
    Ok(json!(ip_text(s)?.to_string()))
}

pub fn ip_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { ip(value) }
}

/// An address block, host bits allowed.
pub fn cidr_text(s: &str) -> Result<IpNet, String> {
    let refuse = || format!("'{}' is not a valid IP subnet", s.chars().take(64).collect::<String>());
    let (_, bits) = s.split_once('/').ok_or_else(|| {
        format!("'{}' isn't a recognized IP subnet cidr, '{}/32' is recommended", plain(&json!(s)), plain(&json!(s)))
    })?;
    bits.parse::<u8>().map_err(|_| refuse())?;
    s.parse::<IpNet>().map_err(|_| refuse())
}

/// An address block; host bits are refused: `10.0.0.5/24` is nearly always a typing mistake.
pub fn cidr(value: &Value) -> Checked {
    let s = value.as_str().ok_or_else(|| format!("'{}' is not a valid IP subnet", plain(value)))?;
    let net = cidr_text(s)?;
    if net.trunc() != net {
        return Err(format!("'{}' isn't a recognized IP subnet cidr, '{}' is recommended", plain(value), net.trunc()));
    }
    Ok(json!(net.to_string()))
}

/// A block where host bits do not matter (`10.0.0.5/24` is kept as it was written).
pub fn prefix_or_null(value: &Value) -> Checked {
    match value.as_str() {
        None if value.is_null() => Ok(Value::Null),
        Some(s) if s.contains('/') => cidr_text(s).map(|_| value.clone()),
        Some(s) => ip_text(s).map(|ip| json!(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }))),
        None => Err(format!("'{}' is not a valid IP subnet", plain(value))),
    }
}

/// Blocks, none twice; host bits are cut off.
pub fn cidrs(value: &Value) -> Checked {
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "subnet list")? {
        let text = item.as_str().ok_or_else(|| format!("'{}' is not a valid IP subnet", plain(item)))?;
        let one = json!(cidr_text(text)?.trunc().to_string());
        if out.contains(&one) {
            return Err(format!("Duplicate items in the list: '{}'", plain(&one)));
        }
        out.push(one);
    }
    Ok(Value::Array(out))
}

/// Blocks of addresses, host bits cut off, none twice.
pub fn blocks(value: &Value) -> Checked {
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "subnet list")? {
        let text = item.as_str().ok_or_else(|| format!("'{}' is not a valid IP subnet", plain(item)))?;
        let one = json!(cidr_text(text)?.trunc().to_string());
        if !out.contains(&one) {
            out.push(one);
        }
    }
    Ok(Value::Array(out))
}

/// One of a few words.
pub fn one_of(value: &Value, words: &[&str]) -> Checked {
    match value.as_str() {
        Some(s) if words.contains(&s) => Ok(value.clone()),
        _ => Err(format!("'{}' is not in {words:?}", plain(value))),
    }
}

pub fn cidr_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { cidr(value) }
}

/// Six octets, unicast; given back in lower case with colons.
pub fn mac(value: &Value) -> Checked {
    let s = value.as_str().unwrap_or_default();
    let refuse = || format!("'{}' is not a valid MAC address", plain(value));
    let octets: Option<Vec<u8>> =
        s.split([':', '-']).map(|p| if p.len() == 2 { u8::from_str_radix(p, 16).ok() } else { None }).collect();
    let octets = octets.filter(|o| o.len() == 6).ok_or_else(refuse)?;
    if octets.iter().all(|o| *o == 0) || octets[0] & 1 == 1 {
        return Err(refuse());
    }
    Ok(json!(octets.iter().map(|o| format!("{o:02x}")).collect::<Vec<_>>().join(":")))
}

/// `null` on update: a new one.
pub fn mac_or_null(value: &Value) -> Checked {
    if value.is_null() { Ok(Value::Null) } else { mac(value) }
}

fn list<'v>(value: &'v Value, what: &str) -> Result<&'v [Value], String> {
    let items = value.as_array().ok_or_else(|| format!("Invalid data format for {what}: '{}'", plain(value)))?;
    if items.len() > LIST_MAX {
        return Err(format!("more than {LIST_MAX} {what}"));
    }
    Ok(items)
}

/// A list of UUIDs without repetition; `null` is the empty list.
pub fn uuids(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "uuid list")? {
        let id = uuid(item)?;
        if out.contains(&id) {
            return Err(format!("Duplicate items in the list: '{}'", plain(&id)));
        }
        out.push(id);
    }
    Ok(Value::Array(out))
}

pub fn texts(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    Ok(Value::Array(list(value, "list")?.iter().map(text::<255>).collect::<Result<_, _>>()?))
}

/// Tags: texts of 1 to 255 characters without comma.
pub fn tags(value: &Value) -> Checked {
    let checked = texts(value)?;
    let bad = |t: &Value| t.as_str().is_none_or(|t| t.is_empty() || t.contains(','));
    match checked.as_array().into_iter().flatten().find(|t| bad(t)) {
        Some(tag) => Err(format!("'{}' is not a valid tag", plain(tag))),
        None => Ok(checked),
    }
}

/// Name servers: addresses, none twice.
pub fn nameservers(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "nameserver")? {
        let one = ip(item).map_err(|_| {
            format!("'{}' is not a valid nameserver. '{}' is not a valid IP address", plain(item), plain(item))
        })?;
        if out.contains(&one) {
            return Err(format!("Duplicate nameserver '{}'", plain(&one)));
        }
        out.push(one);
    }
    Ok(Value::Array(out))
}

fn object<'v>(value: &'v Value, allowed: &[&str], what: &str) -> Result<&'v Map<String, Value>, String> {
    let map = value.as_object().ok_or_else(|| format!("Invalid data format for {what}: '{}'", plain(value)))?;
    if let Some(key) = map.keys().find(|k| !allowed.contains(&k.as_str())) {
        return Err(format!("Unexpected key '{}' in {what}", plain(&json!(key))));
    }
    Ok(map)
}

fn need<'v>(map: &'v Map<String, Value>, key: &str, what: &str) -> Result<&'v Value, String> {
    map.get(key).ok_or_else(|| format!("Invalid data format for {what}: '{key}' is missing"))
}

/// `[{"start", "end"}]`
pub fn ip_pools(value: &Value) -> Checked {
    let mut out = Vec::new();
    for item in list(value, "IP pool")? {
        let map = object(item, &["start", "end"], "IP pool")?;
        out.push(json!({"start": ip(need(map, "start", "IP pool")?)?, "end": ip(need(map, "end", "IP pool")?)?}));
    }
    Ok(Value::Array(out))
}

/// `[{"destination", "nexthop"}]`, none twice.
pub fn routes(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "hostroute")? {
        let map = object(item, &["destination", "nexthop"], "hostroute")?;
        let one = json!({"destination": cidr(need(map, "destination", "hostroute")?)?, "nexthop": ip(need(map, "nexthop", "hostroute")?)?});
        if out.contains(&one) {
            return Err(format!("Duplicate hostroute '{one}'"));
        }
        out.push(one);
    }
    Ok(Value::Array(out))
}

/// `[{"subnet_id"?, "ip_address"?}]`
pub fn fixed_ips(value: &Value) -> Checked {
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "fixed_ips")? {
        let map = object(item, &["subnet_id", "ip_address"], "fixed_ips")?;
        let mut one = Map::new();
        if let Some(subnet) = map.get("subnet_id") {
            one.insert("subnet_id".into(), uuid(subnet)?);
        }
        if let Some(address) = map.get("ip_address") {
            one.insert("ip_address".into(), ip(address)?);
        }
        let one = Value::Object(one);
        if one.get("ip_address").is_some() && out.iter().any(|o| o.get("ip_address") == one.get("ip_address")) {
            return Err(format!("Duplicate IP address '{}'", plain(&one["ip_address"])));
        }
        out.push(one);
    }
    Ok(Value::Array(out))
}

/// An address, or a block that begins with one.
fn is_multicast(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.split('/').next().and_then(|a| a.parse::<IpAddr>().ok()).is_some_and(|ip| ip.is_multicast())
}

/// `[{"ip_address": address or block, "mac_address"?}]`; of a block the bits behind its prefix are kept as they were written,
/// as an address that a guest has there (`192.0.2.10/24`), and do not count.
pub fn address_pairs(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "allowed_address_pairs")? {
        let map = object(item, &["ip_address", "mac_address"], "allowed_address_pairs")?;
        let address = need(map, "ip_address", "allowed_address_pairs")?;
        let address = ip(address)
            .or_else(|_| cidr_text(address.as_str().unwrap_or_default()).map(|net| json!(net.to_string())))
            .map_err(|_| format!("'{}' is not a valid IP address or subnet", plain(address)))?;
        if is_multicast(&address) {
            return Err(format!("'{}' is a multicast address: nobody sends from it", plain(&address)));
        }
        let mut one = Map::new();
        if let Some(m) = map.get("mac_address").filter(|m| !m.is_null()) {
            one.insert("mac_address".into(), mac(m)?);
        }
        one.insert("ip_address".into(), address);
        let one = Value::Object(one);
        if out.contains(&one) {
            return Err(format!("Request contains duplicate address pair: {one}"));
        }
        out.push(one);
    }
    Ok(Value::Array(out))
}

/// `[{"opt_name", "opt_value" (null removes), "ip_version"?}]`
pub fn dhcp_options(value: &Value) -> Checked {
    if value.is_null() {
        return Ok(json!([]));
    }
    let mut out: Vec<Value> = Vec::new();
    for item in list(value, "extra_dhcp_opts")? {
        let map = object(item, &["opt_name", "opt_value", "ip_version", "id"], "extra_dhcp_opts")?;
        let option = text::<64>(need(map, "opt_name", "extra_dhcp_opts")?)?;
        if option.as_str().is_some_and(|s| s.trim().is_empty()) {
            return Err("'' Blank strings are not permitted".to_owned());
        }
        let given = map.get("opt_value").map_or(Ok(Value::Null), text_or_null::<255>)?;
        let version = map.get("ip_version").map_or(Ok(json!(4)), ip_version)?;
        out.push(json!({"opt_name": option, "opt_value": given, "ip_version": version}));
    }
    Ok(Value::Array(out))
}

/// An object of any shape, bounded in size.
pub fn object_or_null(value: &Value) -> Checked {
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(_) if value.to_string().len() <= 4095 => Ok(value.clone()),
        Value::Object(_) => Err("the value is larger than 4095 bytes".to_owned()),
        other => Err(format!("'{}' is not a dictionary", plain(other))),
    }
}

/// `external_gateway_info`: `{}` and `null` both mean none.
pub fn gateway_info(value: &Value) -> Checked {
    let map = match value {
        Value::Null => return Ok(Value::Null),
        Value::Object(map) if map.is_empty() => return Ok(Value::Null),
        other => object(
            other,
            &["network_id", "enable_snat", "external_fixed_ips", "qos_policy_id"],
            "external_gateway_info",
        )?,
    };
    let mut out = Map::new();
    out.insert("network_id".into(), uuid(need(map, "network_id", "external_gateway_info")?)?);
    if let Some(snat) = map.get("enable_snat") {
        out.insert("enable_snat".into(), boolean(snat)?);
    }
    if let Some(fixed) = map.get("external_fixed_ips").filter(|f| !f.is_null()) {
        out.insert("external_fixed_ips".into(), fixed_ips(fixed)?);
    }
    if let Some(policy) = map.get("qos_policy_id") {
        out.insert("qos_policy_id".into(), uuid_or_null(policy)?);
    }
    Ok(Value::Object(out))
}

/// Ways out, each as `external_gateway_info`.
pub fn gateways(value: &Value) -> Checked {
    let mut out = Vec::new();
    for item in list(value, "external_gateways")? {
        match gateway_info(item)? {
            Value::Null => return Err("a gateway has a network".to_owned()),
            gateway => out.push(gateway),
        }
    }
    Ok(Value::Array(out))
}

/// `[{"provider:network_type", "provider:physical_network"?, "provider:segmentation_id"?}]`, given back without the prefix.
pub fn segments(value: &Value) -> Checked {
    const SEGMENTS_MAX: usize = 16;
    if value.is_null() {
        return Ok(json!([]));
    }
    let given = list(value, "segments")?;
    if given.len() > SEGMENTS_MAX {
        return Err(format!("more than {SEGMENTS_MAX} segments"));
    }
    let names = ["provider:network_type", "provider:physical_network", "provider:segmentation_id"];
    let mut out = Vec::new();
    for item in given {
        let map = object(item, &names, "segments")?;
        out.push(json!({
            "network_type": text::<32>(need(map, names[0], "segments")?)?,
            "physical_network": map.get(names[1]).map_or(Ok(Value::Null), text_or_null::<64>)?,
            "segmentation_id": map.get(names[2]).map_or(Ok(Value::Null), int_or_null::<1, 16_777_215>)?,
        }));
    }
    Ok(Value::Array(out))
}

pub fn vnic_type(value: &Value) -> Checked {
    const KNOWN: [&str; 12] = [
        "normal",
        "direct",
        "macvtap",
        "baremetal",
        "direct-physical",
        "virtio-forwarder",
        "smart-nic",
        "vdpa",
        "accelerator-direct",
        "accelerator-direct-physical",
        "remote-managed",
        "vpn",
    ];
    match value.as_str() {
        Some(s) if KNOWN.contains(&s) => Ok(value.clone()),
        _ => Err(format!("'{}' is not in {KNOWN:?}", plain(value))),
    }
}

/// An IPv6 mode of a subnet.
pub fn ipv6_mode(value: &Value) -> Checked {
    match value.as_str() {
        None if value.is_null() => Ok(Value::Null),
        Some("dhcpv6-stateful" | "dhcpv6-stateless" | "slaac") => Ok(value.clone()),
        _ => Err(format!("'{}' is not in ['dhcpv6-stateful', 'dhcpv6-stateless', 'slaac']", plain(value))),
    }
}

/// A DNS label or name, given back in lower case.
pub fn dns_name(value: &Value) -> Checked {
    let s = match value {
        Value::Null => "",
        other => other.as_str().ok_or_else(|| format!("'{}' is not a valid string", plain(other)))?,
    };
    let bare = s.strip_suffix('.').unwrap_or(s);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if s.len() > 255 || (!s.is_empty() && !bare.split('.').all(label)) {
        return Err(format!(
            "'{}' not a valid PQDN or FQDN. Reason: Name or label has bad characters or length",
            plain(value)
        ));
    }
    Ok(json!(s.to_ascii_lowercase()))
}

/// A DNS domain whose labels may be keywords for who makes a port in it.
pub fn dns_domain_of_ports(value: &Value) -> Checked {
    let Some(text) = value.as_str().filter(|text| text.len() <= 255) else { return dns_domain(value) };
    let text = text.to_ascii_lowercase();
    let stand_in = |label| if KEYWORDS.contains(&label) { "keyword" } else { label };
    let spelt: Vec<&str> = text.split('.').map(stand_in).collect();
    dns_domain(&json!(spelt.join("."))).map(|_| json!(text))
}

/// A DNS domain: a whole name, with the dot at its end.
pub fn dns_domain(value: &Value) -> Checked {
    let name = dns_name(value)?;
    match name.as_str() {
        Some(s) if s.is_empty() || s.ends_with('.') => Ok(name),
        _ => Err(format!("'{}' is not a FQDN", plain(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_converted_or_refused() {
        assert_eq!(boolean(&json!("True")).unwrap(), json!(true));
        assert!(boolean(&json!("maybe")).is_err());
        assert_eq!(mac(&json!("FA-16-3E-00-00-01")).unwrap(), json!("fa:16:3e:00:00:01"));
        for wrong in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "fa:16:3e:00:00", "zz:16:3e:00:00:01"] {
            assert!(mac(&json!(wrong)).is_err(), "{wrong}");
        }
        assert!(cidr(&json!("10.0.0.0")).is_err());
        assert_eq!(gateway_info(&json!({})).unwrap(), Value::Null);
        assert!(gateway_info(&json!({"enable_snat": true})).is_err());
        assert!(fixed_ips(&json!([{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1"}])).is_err());
        assert!(dns_name(&json!("-bad")).is_err());
        assert_eq!(dns_name(&json!("Web-1")).unwrap(), json!("web-1"));
        assert_eq!(int::<0, 10>(&json!("7")).unwrap(), json!(7));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_check_fall_over(s in ".{0,64}") {
            let v = json!(s);
            for check in [mac, cidr, ip, uuid, dns_name, boolean, name, fixed_ips, routes, gateway_info] {
                let _ = check(&v);
                let _ = check(&json!([v]));
                let _ = check(&json!([{"ip_address": v, "destination": v}]));
            }
        }
    }
}
