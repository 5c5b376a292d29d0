//! What is accepted, and that each refusal names its field.

use super::*;
use proptest::prelude::*;

fn sample() -> serde_json::Value {
    serde_json::json!({
        "id": "m1", "vcpus": 1, "memory_mib": 64, "kernel": {"path": "/k"},
        "disks": [{"source": {"path": "/d"}, "read_only": true}],
        "nics": [{"tap": {"fd": 7}, "mac": "02:00:00:00:00:01"}],
        "control_socket": {"path": "/s"}, "console": {"log": {"path": "/c"}}
    })
}

fn problem(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut value = sample();
    change(&mut value);
    Config::parse(value.to_string().as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_least_configuration_gets_defaults() {
    let config = Config::parse(sample().to_string().as_bytes()).unwrap();
    assert_eq!(config.nics[0].mtu, 1500);
    assert_eq!(config.nics[0].mac_bytes(), Some([2, 0, 0, 0, 0, 1]));
    assert_eq!(config.on_reset, OnReset::Restart);
    assert!(config.rng && config.disks[0].read_only);
}

#[test]
fn each_bad_value_is_named() {
    assert!(problem(|v| v["vcpus"] = 0.into()).contains("`vcpus`"));
    assert!(problem(|v| v["vcpus"] = 255.into()).contains("`vcpus`"));
    assert!(problem(|v| v["max_vcpus"] = 0.into()).contains("`max_vcpus`"));
    assert!(problem(|v| v["max_vcpus"] = 255.into()).contains("`max_vcpus`"));
    assert!(problem(|v| v["memory_mib"] = 1.into()).contains("`memory_mib`"));
    for bad in [
        serde_json::json!({"max_mib": 0}),
        serde_json::json!({"max_mib": 3}),
        serde_json::json!({"max_mib": 64, "block_mib": 3}),
        serde_json::json!({"max_mib": 64, "block_mib": 128}),
        serde_json::json!({"max_mib": 65536, "block_mib": 2}),
        serde_json::json!({"max_mib": 64, "requested_mib": 66}),
    ] {
        assert!(problem(|v| v["memory_hotplug"] = bad).contains("`memory_hotplug`"));
    }
    assert!(problem(|v| (v["hugetlb"], v["balloon"]) = (true.into(), serde_json::json!({}))).contains("`hugetlb`"));
    assert!(problem(|v| v["host_node"] = 1024.into()).contains("`host_node`"));
    assert!(problem(|v| v["cmdline"] = "a\nb".into()).contains("`cmdline`"));
    assert!(problem(|v| v["firmware"] = serde_json::json!({"path": "/f"})).contains("`firmware` finds kernel"));
    let firmware = |v: &mut serde_json::Value| {
        v["kernel"] = serde_json::Value::Null;
        v["firmware"] = serde_json::json!({"path": "/f"});
    };
    assert!(problem(firmware).contains("must be pci"));
    assert!(problem(|v| v["kernel_first"] = true.into()).contains("`kernel_first`"));
    assert!(problem(|v| v["id"] = "".into()).contains("`id`"));
    assert!(problem(|v| v["nics"][0]["mac"] = "01:00:00:00:00:01".into()).contains("mac"));
    assert!(problem(|v| v["nics"][0]["mac"] = "02:00:00:00:00".into()).contains("mac"));
    assert!(problem(|v| v["nics"][0]["mtu"] = 10.into()).contains("mtu"));
    assert!(problem(|v| v["user"] = serde_json::json!({"uid": 0, "gid": 5})).contains("`user`"));
    assert!(problem(|v| v["console"]["max_bytes"] = 1.into()).contains("`console`"));
    assert!(problem(|v| v["disks"][0]["name"] = "a/b".into()).contains("`name`"));
    assert!(problem(|v| v["disks"][0]["name"] = "nic0".into()).contains("two devices"));
    assert!(problem(|v| v["nics"][0]["name"] = "rng".into()).contains("two devices"));
    assert!(problem(|v| v["surprise"] = 1.into()).contains("unknown field `surprise`"));
    assert!(problem(|v| v["kernel"] = serde_json::json!({"fd": 7})).contains("twice"));
    assert!(problem(|v| v["kernel"] = serde_json::json!({"fd": 1})).contains("standard stream"));
    assert!(problem(|v| v["disks"] = vec![sample()["disks"][0].clone(); 20].into()).contains("slots"));
}

#[test]
fn devices_of_backends_share_memory_and_leave_limits_to_them() {
    let backend = serde_json::json!({"path": "/b"});
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = sample();
        change(&mut value);
        Config::parse(value.to_string().as_bytes())
    };
    assert!(!with(&|_| {}).unwrap().shares_memory());
    let share = |tag: &str| serde_json::json!({"tag": tag, "socket": backend});
    let all: [&dyn Fn(&mut serde_json::Value); 4] = [
        &|v| v["disks"][0]["engine"] = "vhost_user".into(),
        &|v| v["nics"][0]["tap"] = serde_json::json!({"vhost_user": backend}),
        &|v| v["shares"] = vec![share("a"), share("b")].into(),
        &|v| v["shared_memory"] = true.into(),
    ];
    for change in all {
        assert!(with(change).unwrap().shares_memory());
    }
    let names = with(all[2]).unwrap().device_names();
    assert_eq!(names, ["disk0", "nic0", "share0", "share1"]);
    let rate = serde_json::json!({"bytes_per_s": 1});
    let limited = with(&|v| (v["disks"][0]["rate"], v["disks"][0]["engine"]) = (rate.clone(), "vhost_user".into()));
    assert!(limited.unwrap_err().to_string().contains("limits"));
    assert!(problem(|v| v["shares"] = vec![share("a"), share("a")].into()).contains("same tag"));
    assert!(problem(|v| v["shares"] = vec![share("")].into()).contains("1 to 36"));
    assert!(problem(|v| v["shares"] = vec![share(&"x".repeat(37))].into()).contains("1 to 36"));
}

#[test]
fn descriptors_that_are_not_open_are_refused() {
    assert!(inherit(2).is_err());
    assert!(inherit(100_000).is_err());
}

#[test]
fn blocks_are_as_small_as_they_can_be() {
    let block = |max_mib| MemoryHotplug { max_mib, block_mib: None, requested_mib: 0, node: 0 }.block_mib();
    assert_eq!([2, 32_768, 32_770, MEMORY_MIB_MAX].map(block), [2, 2, 4, 256]);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,200}") {
        let _ = Config::parse(text.as_bytes());
    }

    #[test]
    fn macs_parse_only_in_one_form(text in "[0-9a-f:]{0,18}") {
        let nic = Nic { tap: Tap::Fd(3), name: None, mac: text.clone(), mtu: 1500, transmit: Rate::default(), receive: Rate::default() };
        if let Some(b) = nic.mac_bytes() {
            prop_assert_eq!(text, b.map(|x| format!("{x:02x}")).join(":"));
        }
    }
}
