//! JSON patches of images, in both spellings: parsed and applied, or refused; an image stays one that can be shown.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_image::image::{patch, view};
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(data) else { return };
    let Ok(image) = view::new(&json!({"name": "x", "disk_format": "raw", "container_format": "bare"}), Some("p")) else {
        panic!("the plain image is good")
    };
    for kind in [patch::NEW, patch::OLD] {
        let Ok(changes) = patch::parse(kind, &body) else { continue };
        let mut image = image.clone();
        for change in changes.iter().take(1000) {
            let before = image.clone();
            if patch::apply(&mut image, change).is_err() {
                image = before;
            }
        }
        let text = serde_json::to_string(&image).expect("an image can be stored");
        assert!(serde_json::from_str::<pilvi_image::image::model::Image>(&text).is_ok());
    }
    let _ = view::new(&body, Some("p"));
});
