//! pilvi-reconcile
