//! How limits of projects and domains stand to one another. Pure.
//!
//! ```text
//!  flat              each for itself
//!  strict_two_level  domain  >=  each of its projects; projects stand right below their domain
//! ```
use crate::tables::Limit;
use pilvi_kit::Fault;

/// Which of the two is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitModel {
    #[default]
    Flat,
    StrictTwoLevel,
}

impl LimitModel {
    pub const ALL: [LimitModel; 2] = [LimitModel::Flat, LimitModel::StrictTwoLevel];

    pub fn name(self) -> &'static str {
        match self {
            LimitModel::Flat => "flat",
            LimitModel::StrictTwoLevel => "strict_two_level",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            LimitModel::Flat => "Limit enforcement and validation does not take project hierarchy into consideration.",
            LimitModel::StrictTwoLevel => "This model requires project hierarchy never exceeds a depth of two",
        }
    }

    /// Deepest tree, the domain counted.
    pub(crate) fn depth_max(self, configured: usize) -> usize {
        match self {
            LimitModel::Flat => configured,
            LimitModel::StrictTwoLevel => configured.min(2),
        }
    }
}

/// No limit at all.
const UNLIMITED: i64 = -1;

fn exceeds(child: i64, parent: i64) -> bool {
    parent != UNLIMITED && (child == UNLIMITED || child > parent)
}

/// Do two limits speak of the same thing?
pub(super) fn same_resource(a: &Limit, b: &Limit) -> bool {
    a.service_id == b.service_id && a.region_id == b.region_id && a.resource_name == b.resource_name
}

/// 403 unless `limit` fits between the value above it and those below it.
pub(super) fn check(limit: &Limit, above: Option<i64>, below: &[i64]) -> Result<(), Fault> {
    let fits = !above.is_some_and(|above| exceeds(limit.resource_limit, above))
        && !below.iter().any(|below| exceeds(*below, limit.resource_limit));
    if fits {
        return Ok(());
    }
    let (level, id) = match (&limit.project_id, &limit.domain_id) {
        (Some(id), _) => ("project_id", id.as_str()),
        (None, id) => ("domain_id", id.as_deref().unwrap_or_default()),
    };
    Err(Fault::forbidden(format!(
        "Invalid resource limit: The resource limit ({level}: {id}, resource_name: {}, resource_limit: {}, service_id: {}, region_id: {}) doesn't satisfy current hierarchy model.",
        limit.resource_name,
        limit.resource_limit,
        limit.service_id,
        limit.region_id.as_deref().unwrap_or("None")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(resource_limit: i64) -> Limit {
        Limit {
            id: "l".into(),
            project_id: Some("p".into()),
            domain_id: None,
            service_id: "s".into(),
            region_id: None,
            resource_name: "volumes".into(),
            resource_limit,
            description: None,
        }
    }

    #[test]
    fn a_child_has_no_more_than_its_parent() {
        for (value, above, below, fits) in [
            (5, None, &[][..], true),
            (5, Some(5), &[], true),
            (6, Some(5), &[], false),
            (6, Some(-1), &[], true),
            (-1, Some(5), &[], false),
            (-1, Some(-1), &[], true),
            (5, None, &[5, 3], true),
            (4, None, &[5, 3], false),
            (4, None, &[-1], false),
            (-1, None, &[-1, 7], true),
            (0, Some(0), &[0], true),
        ] {
            assert_eq!(check(&limit(value), above, below).is_ok(), fits, "{value} {above:?} {below:?}");
        }
        assert_eq!(check(&limit(1), Some(0), &[]).unwrap_err().code(), 403);
    }
}
