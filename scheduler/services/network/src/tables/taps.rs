//! Taps.
use crate::tap::model::{TapFlow, TapMirror, TapService};
use pilvi_store::{Claim, Column, Record, Value};

impl Record for TapService {
    const KIND: &'static str = "tap_service";
    const COLUMNS: &'static [Column] = &[Column::text("port_id"), Column::int("vni")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.port_id.clone().into(), self.vni.into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "vni".into(), value: self.vni.to_string() }]
    }
}

impl Record for TapFlow {
    const KIND: &'static str = "tap_flow";
    const COLUMNS: &'static [Column] = &[Column::text("source_port"), Column::text("tap_service_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.source_port.clone().into(), self.tap_service_id.clone().into()]
    }
}

impl Record for TapMirror {
    const KIND: &'static str = "tap_mirror";
    const COLUMNS: &'static [Column] = &[Column::text("port_id")];
    named!();
    fn columns(&self) -> Vec<Value> {
        vec![self.port_id.clone().into()]
    }
    /// One mirror may use a number for several ways.
    fn claims(&self) -> Vec<Claim> {
        let numbers: std::collections::BTreeSet<u32> = self.directions.values().copied().collect();
        let claim = |n| Claim { scope: "tap mirror".into(), value: format!("{}/{n}", self.project_id) };
        numbers.into_iter().map(claim).collect()
    }
}
