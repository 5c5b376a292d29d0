//! placeholder
use serde::Serialize;
#[derive(Serialize)]
pub struct Probe {
    present: bool,
}
pub fn probe() -> Probe {
    Probe { present: true }
}
