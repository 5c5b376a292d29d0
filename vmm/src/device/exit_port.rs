//! Port 0xf4: how a guest without power management ends its machine.
//!
//! | byte written | meaning |
//! | --- | --- |
//! | 0 | power off |
//! | 1 | reset |
//! | any other | the guest reports a failure of its own: the machine counts as crashed |

use crate::state::StopReason;

/// The port.
pub const PORT: u16 = 0xf4;

/// What a write to the port means.
pub fn reason(data: &[u8]) -> StopReason {
    match data.first().copied().unwrap_or(0) {
        0 => StopReason::PoweredOff,
        1 => StopReason::Reset,
        code => StopReason::Crashed { detail: format!("the guest reported failure {code} at the exit port") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_meaning() {
        assert_eq!(reason(&[0]), StopReason::PoweredOff);
        assert_eq!(reason(&[1, 0, 0, 0]), StopReason::Reset);
        assert!(matches!(reason(&[9]), StopReason::Crashed { detail } if detail.contains('9')));
    }
}
