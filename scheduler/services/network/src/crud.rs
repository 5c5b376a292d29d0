//! The five routes of a resource, once: list, create, show, update, delete; what differs is the path, the rule's name and
//! the words.
//!
//! ```text
//! crud!(MeteringLabel, METERING_LABEL, "/v2.0/metering/metering-labels", "metering_label", "metering labels", fixed)
//! ```
//! `open` resources can be updated, `fixed` ones cannot: for those a PUT is no route.

/// Routes with the schemas that follow from the resource's table.
macro_rules! crud {
    ($record:ty, $resource:path, $path:expr, $name:expr, $what:literal, fixed) => {{
        static CREATE: std::sync::LazyLock<pilvi_kit::Schema> =
            std::sync::LazyLock::new(|| pilvi_kit::Schema::new(|| $resource.schema($crate::attribute::Verb::Create)));
        vec![
            pilvi_kit::Route::get($path, $crate::verbs::list::<$record>)
                .rule_by_handler(concat!("get_", $name))
                .summary(concat!("Lists ", $what)),
            pilvi_kit::Route::post($path, $crate::verbs::create::<$record>)
                .rule_by_handler(concat!("create_", $name))
                .schema(&CREATE)
                .summary(concat!("Creates one of the ", $what)),
            pilvi_kit::Route::get(concat!($path, "/{id}"), $crate::verbs::show::<$record>)
                .rule_by_handler(concat!("get_", $name))
                .summary(concat!("Shows one of the ", $what)),
            pilvi_kit::Route::delete(concat!($path, "/{id}"), $crate::verbs::delete::<$record>)
                .rule_by_handler(concat!("delete_", $name))
                .summary(concat!("Deletes one of the ", $what)),
        ]
    }};
    ($record:ty, $resource:path, $path:expr, $name:expr, $what:literal, open) => {{
        static UPDATE: std::sync::LazyLock<pilvi_kit::Schema> =
            std::sync::LazyLock::new(|| pilvi_kit::Schema::new(|| $resource.schema($crate::attribute::Verb::Update)));
        let mut routes = $crate::crud::crud!($record, $resource, $path, $name, $what, fixed);
        routes.push(
            pilvi_kit::Route::put(concat!($path, "/{id}"), $crate::verbs::update::<$record>)
                .rule_by_handler(concat!("update_", $name))
                .schema(&UPDATE)
                .summary(concat!("Updates one of the ", $what)),
        );
        routes
    }};
}
pub(crate) use crud;
