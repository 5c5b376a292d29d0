//! Numbers of the overlay that networks get for which no range was made: what the operator's file says, or all.
use crate::network::model::VNI_MAX;
use std::sync::OnceLock;

/// From one number to another, both included.
pub type Numbers = (u32, u32);

const ALL: Numbers = (1, VNI_MAX);

static CHOSEN: OnceLock<Vec<Numbers>> = OnceLock::new();

/// In order: who finds the first full takes of the next.
pub fn chosen() -> &'static [Numbers] {
    CHOSEN.get_or_init(|| vec![ALL])
}

/// Whether there are numbers beside those of networks.
pub fn are_all() -> bool {
    chosen() == [ALL]
}

/// Takes the operator's word, once, before any network is made: `FIRST:LAST` each.
///
/// # Errors
/// Text that is not, numbers that are none, ranges that overlap.
pub fn choose(ranges: &[String]) -> Result<(), String> {
    let parsed = parse(ranges)?;
    // Who comes second in a process (a test) finds what the first has chosen.
    let _ = CHOSEN.set(parsed);
    Ok(())
}

fn parse(ranges: &[String]) -> Result<Vec<Numbers>, String> {
    let mut out: Vec<Numbers> = Vec::new();
    for text in ranges {
        let ends: Vec<Option<u32>> = text.split(':').map(|end| end.trim().parse().ok()).collect();
        match ends.as_slice() {
            &[Some(first), Some(last)] if (1..=last).contains(&first) && last <= VNI_MAX => {
                if out.iter().any(|(a, b)| *a <= last && first <= *b) {
                    return Err(format!("{text:?} overlaps another range"));
                }
                out.push((first, last));
            }
            _ => return Err(format!("{text:?} is not FIRST:LAST with numbers from 1 to {VNI_MAX}")),
        }
    }
    Ok(if out.is_empty() { vec![ALL] } else { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused_with_the_reason() {
        let read = |all: &[&str]| parse(&all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&[]).unwrap(), [ALL]);
        assert_eq!(read(&["1:2000", "5000 : 5000"]).unwrap(), [(1, 2000), (5000, 5000)]);
        for bad in ["", "1", "0:5", "9:5", "1:16777216", "1:2:3", "a:b"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&["1:9", "9:20"]).unwrap_err().contains("overlaps"));
    }
}
