//! Taps.
use crate::tap::model::{TapFlow, TapService};
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
