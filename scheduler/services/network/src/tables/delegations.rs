//! Prefixes that are lent.
use crate::delegation::model::PrefixLease;
use pilvi_store::{Column, Record, Value};

impl Record for PrefixLease {
    const KIND: &'static str = "prefix_lease";
    const COLUMNS: &'static [Column] = &[Column::text("router_id"), Column::text("subnet_id"), Column::text("host_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        [&self.router_id, &self.subnet_id, &self.host_id].map(|v| v.clone().into()).to_vec()
    }
}
