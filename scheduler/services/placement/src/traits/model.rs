//! Names of traits; pure.
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// A trait that an operator or the fleet made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trait {
    pub name: String,
}

/// Providers with this trait lend their inventory to every tree in one of their aggregates.
pub const SHARES: &str = "MISC_SHARES_VIA_AGGREGATE";

/// The published names, sorted, one a line.
const STANDARD: &str = include_str!("standard.txt");

pub fn standard() -> impl Iterator<Item = &'static str> {
    STANDARD.lines().filter(|line| !line.is_empty())
}

pub fn is_standard(name: &str) -> bool {
    static SORTED: LazyLock<Vec<&str>> = LazyLock::new(|| standard().collect());
    SORTED.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_list_is_sorted_and_well_formed() {
        let names: Vec<_> = standard().collect();
        assert!(names.len() > 300);
        assert!(names.windows(2).all(|w| w[0] < w[1]));
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')));
        assert!(is_standard(SHARES) && is_standard("COMPUTE_STATUS_DISABLED") && !is_standard("CUSTOM_X"));
    }
}
