//! Lines of the control socket, and configurations: refused or understood; what is understood survives the way back.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::config::Config;
use pilvi_vmm::control::{Reply, Request};

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let text = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&text).unwrap(), request);
    }
    let _ = serde_json::from_slice::<Reply>(data);
    if let Ok(config) = Config::parse(data) {
        let text = serde_json::to_vec(&config).unwrap();
        assert_eq!(Config::parse(&text).unwrap(), config);
    }
});
