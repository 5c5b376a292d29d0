//! A provider, its inventories and its usage counters; pure.
//!
//! ```text
//! capacity(class) = (total - reserved) * allocation_ratio          used <= capacity after every claim
//! one request must be a multiple of step_size within min_unit..=max_unit
//! generation grows by one with every change of inventories, traits, aggregates (1.19) or allocations
//! ```
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Amounts are units of the class: cores, MiB, GiB, addresses.
pub const AMOUNT_MAX: i64 = 0x7fff_ffff;

/// What a provider has of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    pub total: i64,
    pub reserved: i64,
    pub min_unit: i64,
    pub max_unit: i64,
    pub step_size: i64,
    pub allocation_ratio: f64,
}

impl Inventory {
    /// All of `total` may be taken, in any amount.
    pub fn plain(total: i64) -> Self {
        Inventory { total, reserved: 0, min_unit: 1, max_unit: AMOUNT_MAX, step_size: 1, allocation_ratio: 1.0 }
    }

    /// What may be given out; negative when more is reserved than there is.
    pub fn capacity(&self) -> i64 {
        // Saturating: a float beyond the range of i64 becomes its bound.
        ((self.total.saturating_sub(self.reserved)) as f64 * self.allocation_ratio) as i64
    }

    /// May one consumer take this amount at all?
    pub fn admits(&self, amount: i64) -> bool {
        amount >= self.min_unit && amount <= self.max_unit && self.step_size > 0 && amount % self.step_size == 0
    }
}

/// Amounts by class.
pub type Amounts = BTreeMap<String, i64>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    pub uuid: String,
    pub name: String,
    /// Counts changes that users of the API must notice.
    pub generation: i64,
    pub parent: Option<String>,
    /// Its own uuid when it stands at the root of its tree.
    pub root: String,
    #[serde(default)]
    pub inventories: BTreeMap<String, Inventory>,
    /// Sum of all allocations by class; no entry is zero.
    #[serde(default)]
    pub used: Amounts,
    #[serde(default)]
    pub traits: BTreeSet<String>,
    #[serde(default)]
    pub aggregates: BTreeSet<String>,
    /// Classes and traits that the fleet's reconciler put here: it takes away no others.
    #[serde(default)]
    pub owned: Owned,
}

/// What the last `ensure_in` set, so that what operators added stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Owned {
    pub classes: BTreeSet<String>,
    pub traits: BTreeSet<String>,
}

/// Why an amount does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    NoInventory { class: String, provider: String },
    Constraint { class: String, provider: String },
    Full { class: String, provider: String },
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::NoInventory { class, provider } => {
                write!(f, "Inventory for '{class}' on resource provider '{provider}' invalid.")
            }
            Misfit::Constraint { class, provider } => {
                write!(
                    f,
                    "Unable to create allocation for '{class}' on resource provider '{provider}'. The requested amount would violate inventory constraints."
                )
            }
            Misfit::Full { class, provider } => {
                write!(
                    f,
                    "Unable to create allocation for '{class}' on resource provider '{provider}'. The requested amount would exceed the capacity."
                )
            }
        }
    }
}

impl Provider {
    pub fn new(uuid: &str, name: &str) -> Self {
        Provider {
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            generation: 0,
            parent: None,
            root: uuid.to_owned(),
            inventories: BTreeMap::new(),
            used: Amounts::new(),
            traits: BTreeSet::new(),
            aggregates: BTreeSet::new(),
            owned: Owned::default(),
        }
    }

    pub fn used_of(&self, class: &str) -> i64 {
        self.used.get(class).copied().unwrap_or(0)
    }

    /// What is left of a class; negative when it is overcommitted.
    pub fn free_of(&self, class: &str) -> i64 {
        self.inventories.get(class).map_or(0, |i| i.capacity().saturating_sub(self.used_of(class)))
    }

    pub fn free(&self) -> Amounts {
        self.inventories.keys().map(|class| (class.clone(), self.free_of(class))).collect()
    }

    /// Could one more consumer take `amount` now?
    pub fn can_give(&self, class: &str, amount: i64) -> bool {
        self.inventories.get(class).is_some_and(|i| i.admits(amount)) && self.free_of(class) >= amount
    }

    /// Replaces what consumers hold here: `before` is given back, `after` (one entry a consumer) is taken.
    /// A class that does not grow is never refused for being full, so that guests can leave an
    /// overcommitted host. The generation is the caller's to count.
    pub fn exchange(&mut self, before: &[&Amounts], after: &[&Amounts]) -> Result<(), Misfit> {
        let mut change = Amounts::new();
        for (class, amount) in before.iter().flat_map(|a| a.iter()) {
            *change.entry(class.clone()).or_default() -= amount;
        }
        for (class, amount) in after.iter().flat_map(|a| a.iter()) {
            let (class, provider) = (class.clone(), self.uuid.clone());
            match self.inventories.get(&class) {
                None => return Err(Misfit::NoInventory { class, provider }),
                Some(inventory) if !inventory.admits(*amount) => return Err(Misfit::Constraint { class, provider }),
                Some(_) => {}
            }
            let entry = change.entry(class).or_default();
            *entry = entry.saturating_add(*amount);
        }
        for (class, delta) in &change {
            if *delta > 0 && self.free_of(class) < *delta {
                return Err(Misfit::Full { class: class.clone(), provider: self.uuid.clone() });
            }
        }
        for (class, delta) in change {
            let used = self.used_of(&class).saturating_add(delta);
            if used > 0 {
                self.used.insert(class, used);
            } else {
                self.used.remove(&class);
            }
        }
        Ok(())
    }

    /// Sets all inventories; the error lists classes that are in use and would go.
    pub fn set_inventories(&mut self, inventories: BTreeMap<String, Inventory>) -> Result<(), Vec<String>> {
        let gone: Vec<String> =
            self.inventories.keys().filter(|c| !inventories.contains_key(*c) && self.used_of(c) > 0).cloned().collect();
        if !gone.is_empty() {
            return Err(gone);
        }
        self.inventories = inventories;
        self.generation += 1;
        Ok(())
    }

    /// Takes over what the fleet observed of its host; false when nothing changed.
    pub fn observe(
        &mut self,
        name: &str,
        inventories: &BTreeMap<String, Inventory>,
        traits: &BTreeSet<String>,
    ) -> bool {
        let before = self.clone();
        name.clone_into(&mut self.name);
        let leaving: Vec<String> =
            self.owned.classes.iter().filter(|c| !inventories.contains_key(*c)).cloned().collect();
        for class in leaving {
            // In use: stays until its last consumer has gone, and stays ours, so that a later pass removes it.
            if self.used_of(&class) == 0 {
                self.inventories.remove(&class);
                self.owned.classes.remove(&class);
            }
        }
        for (class, inventory) in inventories {
            self.inventories.insert(class.clone(), inventory.clone());
            self.owned.classes.insert(class.clone());
        }
        self.traits.retain(|t| !self.owned.traits.contains(t));
        self.traits.extend(traits.iter().cloned());
        self.owned.traits.clone_from(traits);
        if *self == before {
            return false;
        }
        if self.inventories != before.inventories || self.traits != before.traits {
            self.generation += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amounts(class: &str, n: i64) -> Amounts {
        [(class.to_owned(), n)].into()
    }

    fn host() -> Provider {
        let mut p = Provider::new("h", "host");
        p.inventories.insert(
            "VCPU".into(),
            Inventory { allocation_ratio: 2.0, reserved: 1, max_unit: 4, ..Inventory::plain(4) },
        );
        p
    }

    #[test]
    fn ratio_reserve_and_units_decide() {
        let mut p = host();
        assert_eq!(p.free_of("VCPU"), 6);
        assert!(p.can_give("VCPU", 4) && !p.can_give("VCPU", 5) && !p.can_give("DISK_GB", 1));
        p.exchange(&[], &[&amounts("VCPU", 4)]).unwrap();
        assert!(matches!(p.exchange(&[], &[&amounts("VCPU", 3)]), Err(Misfit::Full { .. })));
        assert!(matches!(p.exchange(&[], &[&amounts("VCPU", 5)]), Err(Misfit::Constraint { .. })));
        assert!(matches!(p.exchange(&[], &[&amounts("VGPU", 1)]), Err(Misfit::NoInventory { .. })));
        assert_eq!((p.used_of("VCPU"), p.generation), (4, 0));
        assert_eq!(p.set_inventories(BTreeMap::new()), Err(vec!["VCPU".to_owned()]));
        p.exchange(&[&amounts("VCPU", 4)], &[]).unwrap();
        assert!(p.used.is_empty());
    }

    #[test]
    fn an_overcommitted_class_may_shrink_but_not_grow() {
        let mut p = host();
        p.exchange(&[], &[&amounts("VCPU", 4)]).unwrap();
        p.inventories.insert("VCPU".into(), Inventory::plain(3));
        p.exchange(&[&amounts("VCPU", 4)], &[&amounts("VCPU", 3)]).unwrap();
        assert!(p.exchange(&[&amounts("VCPU", 3)], &[&amounts("VCPU", 4)]).is_err());
    }

    #[test]
    fn the_fleet_takes_back_only_what_it_gave() {
        let mut p = Provider::new("h", "host");
        p.inventories.insert("CUSTOM_LICENCE".into(), Inventory::plain(3));
        p.traits.insert("CUSTOM_BY_OPERATOR".into());
        let traits: BTreeSet<String> = ["HW_CPU_X86_AVX".to_owned()].into();
        let first: BTreeMap<_, _> =
            [("VCPU".to_owned(), Inventory::plain(4)), ("VGPU".to_owned(), Inventory::plain(1))].into();
        assert!(p.observe("host", &first, &traits));
        assert!(!p.observe("host", &first, &traits));
        p.exchange(&[], &[&amounts("VGPU", 1)]).unwrap();
        assert!(!p.observe("host", &first, &traits));
        assert!(p.observe("host", &[("VCPU".to_owned(), Inventory::plain(8))].into(), &BTreeSet::new()));
        assert_eq!(p.inventories.keys().collect::<Vec<_>>(), ["CUSTOM_LICENCE", "VCPU", "VGPU"]);
        assert_eq!(p.traits.iter().collect::<Vec<_>>(), ["CUSTOM_BY_OPERATOR"]);
        p.exchange(&[&amounts("VGPU", 1)], &[]).unwrap();
        assert!(p.observe("host", &[("VCPU".to_owned(), Inventory::plain(8))].into(), &BTreeSet::new()));
        assert!(!p.inventories.contains_key("VGPU"));
    }

    proptest! {
        #[test]
        fn never_more_used_than_there_is(total in 1i64..50, ratio in 0.1f64..4.0, claims in proptest::collection::vec((0usize..6, 1i64..20), 0..40)) {
            let mut p = Provider::new("h", "host");
            p.inventories.insert("VCPU".into(), Inventory { allocation_ratio: ratio, ..Inventory::plain(total) });
            let mut held: Vec<Amounts> = vec![Amounts::new(); 6];
            for (consumer, n) in claims {
                let wanted = amounts("VCPU", n);
                if p.exchange(&[&held[consumer]], &[&wanted]).is_ok() { held[consumer] = wanted; }
                let sum: i64 = held.iter().flat_map(|h| h.values()).sum();
                prop_assert_eq!(sum, p.used_of("VCPU"));
                prop_assert!(sum <= p.inventories["VCPU"].capacity());
            }
        }
    }
}
