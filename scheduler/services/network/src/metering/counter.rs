//! What labels have counted: sums over all hosts for operators, and what is new for the events.
//!
//! Neutron tells telemetry by `l3.meter` notifications and shows nothing itself; here both are there. The reading of a
//! label is an operation of its own below the label's path.
use super::model::{MeterReading, MeteringLabel};
use crate::{
    Network,
    tables::find,
    verbs::{Api, gate, raw_of},
};
use pilvi_agent_api::v1::ObservedMeter;
use pilvi_kit::{Call, Fault, Reply, Response, Route};
use pilvi_store::{Query, Tx};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub fn route() -> Route<Network> {
    Route::get("/v2.0/metering/metering-labels/{id}/counters", show)
        .rule_by_handler("get_metering_label")
        .summary("What a label has counted")
}

async fn show(svc: Arc<Network>, call: Call) -> Reply {
    let id = call.param("id").to_owned();
    let raw = raw_of::<MeteringLabel>(&svc.store, &call.ctx, &id).await;
    let _ = call.may(call.rule(), &call.target());
    gate(&call, MeteringLabel::RESOURCE, &raw?)?;
    let readings = svc.store.list::<MeterReading>(find::of_label(&id)).await?;
    let sum = |of: fn(&MeterReading) -> u64| readings.iter().map(|r| of(&r.record)).fold(0u64, u64::saturating_add);
    let counters = json!({"metering_label_id": id, "packets": sum(|r| r.packets), "bytes": sum(|r| r.bytes)});
    Ok(Response::ok(json!({ "counters": counters })))
}

/// What is new of one label since its host's last report, as Neutron's `l3.meter` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub label_id: String,
    pub project_id: String,
    pub host: String,
    pub packets: u64,
    pub bytes: u64,
}

impl Sample {
    pub fn payload(&self) -> Value {
        json!({"label_id": self.label_id, "project_id": self.project_id, "tenant_id": self.project_id, "host": self.host,
            "pkts": self.packets, "bytes": self.bytes})
    }
}

impl Network {
    /// Takes up what a host has counted; gives what is new.
    pub async fn metered(&self, host: &str, meters: &[ObservedMeter]) -> Result<Vec<Sample>, Fault> {
        let ids: Vec<String> = meters.iter().map(|m| format!("{}/{host}", m.label_id)).collect();
        let known = self.store.list::<MeterReading>(Query::all().ids(ids.iter().map(String::as_str))).await?;
        let known: BTreeMap<String, MeterReading> =
            known.into_iter().map(|r| (r.record.metering_label_id.clone(), r.record)).collect();
        let said = |r: &MeterReading| (r.last_packets, r.last_bytes);
        let news: Vec<ObservedMeter> = meters
            .iter()
            .filter(|m| known.get(&m.label_id).map_or((0, 0), said) != (m.packets, m.bytes))
            .cloned()
            .collect();
        if news.is_empty() {
            return Ok(Vec::new());
        }
        let host = host.to_owned();
        self.store
            .write(move |tx| {
                let (host, news) = (host.clone(), news.clone());
                Box::pin(async move {
                    let mut samples = Vec::new();
                    for meter in &news {
                        samples.extend(take_in(tx, &host, meter).await?);
                    }
                    Ok::<_, Fault>(samples)
                })
            })
            .await
    }
}

/// `None` when the label is gone, or nothing is new after all.
async fn take_in(tx: &mut Tx, host: &str, meter: &ObservedMeter) -> Result<Option<Sample>, Fault> {
    let Some(label) = tx.get::<MeteringLabel>(&meter.label_id).await? else { return Ok(None) };
    let mut reading = MeterReading::new(host, &meter.label_id);
    let (packets, bytes) = match tx.get::<MeterReading>(&reading.id).await? {
        Some(mut found) => {
            let new = found.record.read(meter.packets, meter.bytes);
            tx.update(&found).await?;
            new
        }
        None => {
            let new = reading.read(meter.packets, meter.bytes);
            tx.insert(&reading).await?;
            new
        }
    };
    let (label_id, project_id) = (meter.label_id.clone(), label.record.project_id);
    Ok((packets > 0).then(|| Sample { label_id, project_id, host: host.to_owned(), packets, bytes }))
}
