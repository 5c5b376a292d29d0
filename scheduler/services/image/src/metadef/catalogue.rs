//! The usual catalogue: what images, flavors, volumes and aggregates commonly carry, as data beside this file.
//!
//! It is put into the store at the first start, and what a later release adds at the start after that. What was
//! put there once is never put there again: an administrator who deleted or changed a namespace meant it.
use super::{model::Namespace, view};
use crate::Image;
use pilvi_kit::{Fault, clock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

const FILES: &[&str] = &[
    include_str!("catalogue/cim-processor-allocation-setting-data.json"),
    include_str!("catalogue/cim-resource-allocation-setting-data.json"),
    include_str!("catalogue/cim-storage-allocation-setting-data.json"),
    include_str!("catalogue/cim-virtual-system-setting-data.json"),
    include_str!("catalogue/compute-aggr-disk-filter.json"),
    include_str!("catalogue/compute-aggr-iops-filter.json"),
    include_str!("catalogue/compute-aggr-num-instances.json"),
    include_str!("catalogue/compute-cpu-pinning.json"),
    include_str!("catalogue/compute-guest-memory-backing.json"),
    include_str!("catalogue/compute-guest-shutdown.json"),
    include_str!("catalogue/compute-host-capabilities.json"),
    include_str!("catalogue/compute-hypervisor.json"),
    include_str!("catalogue/compute-instance-data.json"),
    include_str!("catalogue/compute-libvirt.json"),
    include_str!("catalogue/compute-libvirt-image.json"),
    include_str!("catalogue/compute-quota.json"),
    include_str!("catalogue/compute-randomgen.json"),
    include_str!("catalogue/compute-vcputopology.json"),
    include_str!("catalogue/compute-vmware.json"),
    include_str!("catalogue/compute-vmware-flavor.json"),
    include_str!("catalogue/compute-vmware-quota-flavor.json"),
    include_str!("catalogue/compute-vtpm.json"),
    include_str!("catalogue/compute-vtpm-hw.json"),
    include_str!("catalogue/compute-watchdog.json"),
    include_str!("catalogue/compute-xenapi.json"),
    include_str!("catalogue/glance-common-image-props.json"),
    include_str!("catalogue/image-signature-verification.json"),
    include_str!("catalogue/operating-system.json"),
    include_str!("catalogue/software-databases.json"),
    include_str!("catalogue/software-runtimes.json"),
    include_str!("catalogue/software-webservers.json"),
    include_str!("catalogue/storage-volume-type.json"),
];

/// Who owns the namespaces of the catalogue, as far as anyone does.
const OWNER: &str = "admin";

/// Names of the namespaces that were put into the store at any time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Loaded {
    pub names: BTreeSet<String>,
}

/// All namespaces of the catalogue.
fn namespaces(now_us: i64) -> Result<Vec<Namespace>, Fault> {
    let read = |text: &&str| {
        let body: Value = serde_json::from_str(text).map_err(Fault::internal)?;
        view::new(&body, OWNER, now_us)
    };
    FILES.iter().map(read).collect()
}

/// Puts in what was never put in. Called at each start.
pub async fn load(svc: &Image) -> Result<(), Fault> {
    let all = namespaces(clock::now_us())?;
    svc.store
        .write(move |tx| {
            let all = all.clone();
            Box::pin(async move {
                let known = tx.get::<Loaded>(Loaded::ID).await?;
                let mut names = known.as_ref().map(|k| k.record.names.clone()).unwrap_or_default();
                for namespace in all {
                    let is_new = names.insert(namespace.name.clone());
                    if is_new && tx.get::<Namespace>(&namespace.name).await?.is_none() {
                        tx.insert(&namespace).await?;
                    }
                }
                match known {
                    None => drop(tx.insert(&Loaded { names }).await?),
                    Some(mut stored) if stored.record.names != names => {
                        stored.record.names = names;
                        tx.update(&stored).await?;
                    }
                    Some(_) => {}
                }
                Ok::<_, Fault>(())
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadef::schemas;
    use pilvi_kit::Schema;

    #[test]
    fn every_file_is_a_namespace_that_a_client_could_have_made() {
        let schema = Schema::new(schemas::namespace);
        for text in FILES {
            let body: Value = serde_json::from_str(text).unwrap();
            schema.check(&body).unwrap_or_else(|fault| panic!("{}: {fault}", body["namespace"]));
        }
        let all = namespaces(0).unwrap();
        let names: BTreeSet<&str> = all.iter().map(|n| n.name.as_str()).collect();
        assert_eq!((names.len(), all.len()), (32, 32));
        let properties = |n: &Namespace| {
            let inside = |o: &crate::metadef::model::Entry| o.body["properties"].as_object().map_or(0, |p| p.len());
            n.properties.len() + n.objects.values().map(inside).sum::<usize>()
        };
        assert_eq!(all.iter().map(properties).sum::<usize>(), 197);
    }
}
