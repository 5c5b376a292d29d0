//! The verbs of labels and their rules; the only writer of both records.
use super::model::{MeterReading, MeteringLabel, MeteringRule};
use crate::{fault, list::Raw, tables::find};
use pilvi_kit::Fault;
use pilvi_store::{Stored, Tx};
use serde_json::{Value, json};

/// Rules of one label: each is looked at for every packet of a router's way out.
const RULES_MAX: u64 = 64;
/// Labels of one project.
const LABELS_MAX: u64 = 64;

pub fn label_missing(id: &str) -> Fault {
    fault::missing("MeteringLabelNotFound", "Metering label", id)
}

pub async fn create_label_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<MeteringLabel>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let label: MeteringLabel = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    if tx.count::<MeteringLabel>(find::of_project(&label.project_id)).await? >= LABELS_MAX {
        return Err(Fault::conflict(format!("A project has at most {LABELS_MAX} metering labels.")));
    }
    Ok(tx.insert(&label).await?)
}

/// The label goes with its rules and with what was counted.
pub async fn delete_label_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    for rule in tx.list::<MeteringRule>(find::of_label(id)).await? {
        tx.delete::<MeteringRule>(&rule.id).await?;
    }
    for reading in tx.list::<MeterReading>(find::of_label(id)).await? {
        tx.delete::<MeterReading>(&reading.id).await?;
    }
    tx.delete::<MeteringLabel>(id).await?;
    Ok(())
}

pub async fn create_rule_in(tx: &mut Tx, attrs: &Raw) -> Result<Stored<MeteringRule>, Fault> {
    let mut document = attrs.clone();
    document.insert("id".into(), json!(pilvi_kit::id::new()));
    let mut rule: MeteringRule = serde_json::from_value(Value::Object(document)).map_err(Fault::internal)?;
    let label = tx.get::<MeteringLabel>(&rule.metering_label_id).await?;
    rule.project_id = label.ok_or_else(|| label_missing(&rule.metering_label_id))?.record.project_id;
    check_prefixes(&rule)?;
    let others = tx.list::<MeteringRule>(find::of_label(&rule.metering_label_id)).await?;
    if let Some(other) = others.iter().find(|o| o.overlaps(&rule)) {
        let prefix = other.remote_ip_prefix.clone().unwrap_or_default();
        return Err(fault::conflict(
            "MeteringLabelRuleOverlaps",
            format!("Metering label rule with remote_ip_prefix '{prefix}' overlaps another."),
        ));
    }
    if others.len() as u64 >= RULES_MAX {
        return Err(Fault::conflict(format!("A metering label has at most {RULES_MAX} rules.")));
    }
    Ok(tx.insert(&rule).await?)
}

fn check_prefixes(rule: &MeteringRule) -> Result<(), Fault> {
    let ends = (&rule.source_ip_prefix, &rule.destination_ip_prefix);
    match (&rule.remote_ip_prefix, ends) {
        (None, (None, None)) => Err(Fault::bad_request(
            "You must define at least one of the following parameters 'remote_ip_prefix', or 'source_ip_prefix' or 'destination_ip_prefix'.",
        )),
        (Some(_), (None, None)) | (None, _) => match ends {
            (Some(a), Some(b)) if a.contains(':') != b.contains(':') => {
                Err(fault::invalid("source and destination are of different IP versions"))
            }
            _ => Ok(()),
        },
        (Some(_), _) => Err(Fault::bad_request(
            "Cannot use 'remote-ip-prefix' in conjunction with 'source-ip-prefix' or 'destination-ip-prefix'.",
        )),
    }
}
