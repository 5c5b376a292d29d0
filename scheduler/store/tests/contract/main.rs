//! One contract, three engines: SQLite in memory, SQLite in a file, and a real PostgreSQL server.
//!
//! Each case is an async function over a [`Place`]; the macro below makes a test of it for each engine.
//! Where PostgreSQL is not installed, its tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
mod durability;
mod feed;
mod fresh;
mod harness;
mod leases;
mod listing;
mod opening;
mod records;
mod slow;
mod text;
mod transactions;
mod wire;

macro_rules! engines {
    ($($group:ident :: $case:ident),* $(,)?) => {
        engines!(@ memory Memory $($group $case)*);
        engines!(@ file File $($group $case)*);
        engines!(@ postgres Postgres $($group $case)*);
    };
    (@ $module:ident $engine:ident $($group:ident $case:ident)*) => {
        mod $module {
            use crate::harness::{Engine, Place};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    if let Some(place) = Place::new(Engine::$engine) {
                        crate::$group::$case(place).await;
                    }
                }
            )*
        }
    };
}

engines![
    records::insert_get_update_delete,
    records::a_stale_revision_is_refused,
    records::a_recreated_record_is_another,
    records::claims_are_exclusive_and_follow_the_record,
    records::a_refused_call_leaves_nothing,
    records::records_that_cannot_be_stored_are_refused,
    transactions::several_records_or_none,
    transactions::racing_claims_have_one_winner,
    transactions::a_check_then_insert_is_serialisable,
    transactions::no_increment_is_lost,
    transactions::a_panic_is_contained,
    transactions::only_the_tx_may_be_awaited,
    transactions::a_caller_that_leaves_does_no_harm,
    listing::lists_and_pages_equal_a_model,
    listing::filters_and_columns_are_checked,
    listing::sums_and_groups,
    listing::times_are_columns,
    listing::labels_follow_their_record,
    feed::a_reader_resumes,
    feed::a_reader_sees_every_change_once,
    feed::a_reader_behind_the_horizon_is_told,
    feed::watchers_wake,
    feed::another_store_sees_commits,
    leases::take_over_raises_the_epoch,
    leases::a_fenced_holder_changes_nothing,
    leases::one_of_many_gets_it,
    leases::work_under_a_lost_lease_is_refused,
    leases::seizing_fences_whoever_held_it,
    leases::a_lease_that_ran_out_can_be_renewed_until_it_is_taken,
    leases::holdings_are_listed_by_prefix,
    fresh::what_others_committed_is_told_before_the_next_answer,
    fresh::a_listener_that_fails_is_told_again,
    slow::slow_statements_are_told_without_values,
    opening::a_file_serves_one_scheduler,
    text::any_text_survives,
    text::nul_is_refused_in_columns_only,
    opening::many_may_open_at_once,
    opening::a_new_column_is_filled,
    opening::old_documents_are_upgraded,
    opening::a_newer_store_is_refused,
    opening::kinds_must_be_declared_properly,
];
