//! Mappings of federation: `{"version", "mapping", "assertion"}` is refused, or applied; what is kept can be applied to
//! whatever a provider says, which ends, and two times with the same result.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_identity::rehearse_mapping;
use serde_json::Value;
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    let Ok(case) = serde_json::from_slice::<Value>(data) else { return };
    let texts = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let assertion: BTreeMap<String, Vec<String>> =
        case["assertion"].as_object().into_iter().flatten().map(|(name, values)| (name.clone(), texts(values))).collect();
    for version in [case["version"].as_str().unwrap_or("1.0"), "2.0", "3.0"] {
        match rehearse_mapping(&case["mapping"], version, assertion.clone()) {
            Err(fault) => assert!(fault.code() == 400 && fault.message.len() < 8192, "{fault}"),
            Ok(outcome) => {
                let again = rehearse_mapping(&case["mapping"], version, assertion.clone());
                assert_eq!(again.ok(), Some(outcome));
            }
        }
    }
});
