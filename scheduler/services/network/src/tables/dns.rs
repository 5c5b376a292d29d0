//! What is published of ports and floating IPs, found by names; the names, and who wishes that they be looked at.
use crate::dns::model::{NameWish, Publication, PublishedName};
use pilvi_store::Record;

impl Record for Publication {
    const KIND: &'static str = "dns_publication";
    fn id(&self) -> &str {
        &self.id
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.names().into_iter().map(str::to_owned).collect()
    }
}

impl Record for PublishedName {
    const KIND: &'static str = "dns_published_name";
    fn id(&self) -> &str {
        &self.id
    }
}

impl Record for NameWish {
    const KIND: &'static str = "dns_name_wish";
    fn id(&self) -> &str {
        &self.id
    }
}
