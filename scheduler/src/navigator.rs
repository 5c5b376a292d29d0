//! `pilvi navigator`: how much of each documented API is there, and what is not. Needs no running cloud.
use crate::{cli::Navigator, output, preflight::Refusal, site};
use anyhow::Result;
use pilvi_kit::navigator::{Coverage, State};

pub fn run(arguments: &Navigator) -> Result<()> {
    let mut pages = site::coverage();
    if let Some(wanted) = &arguments.service {
        let known: Vec<&str> = pages.iter().map(|p| p.service).collect();
        if !known.contains(&wanted.as_str()) {
            return Err(Refusal(format!("there is no service {wanted}; there are {}.", known.join(", "))).into());
        }
        pages.retain(|p| p.service == wanted);
    }
    if arguments.json {
        let all: Vec<serde_json::Value> = pages.iter().map(Coverage::to_json).collect();
        output::line(&serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    output::line(&format!(
        "{:<12}{:>6}{:>9}{:>9}{:>12}{:>8}  {:<14}original",
        "service", "done", "refused", "missing", "documented", "done %", "microversion"
    ));
    for page in &pages {
        output::line(&format!(
            "{:<12}{:>6}{:>9}{:>9}{:>12}{:>7}.{}  {:<14}{}",
            page.service,
            page.done(),
            page.refused(),
            page.missing().count(),
            page.operations.len(),
            page.per_mille() / 10,
            page.per_mille() % 10,
            page.microversion.as_deref().unwrap_or("-"),
            page.original
        ));
    }
    for page in &pages {
        rest(page);
    }
    Ok(())
}

/// What is not there, and why where that is known.
fn rest(page: &Coverage) {
    if page.done() == page.operations.len() {
        return;
    }
    output::line(&format!("\n{}", page.service));
    for operation in &page.operations {
        match &operation.state {
            State::Done => {}
            State::Missing => output::line(&format!("  missing  {:<6} {}", operation.method, operation.path)),
            State::Refused(why) => {
                output::line(&format!("  refused  {:<6} {}: {why}", operation.method, operation.path));
            }
        }
    }
}
