//! Rule names and defaults, as placement has them: administrators and services, and readers for their
//! own project's usages.
use pilvi_kit::RuleDefault;

const ADMIN_OR_SERVICE: &str = "rule:admin_or_service_api";
const SCOPES: &[&str] = &["project"];

const fn rule(name: &'static str, check: &'static str, description: &'static str) -> RuleDefault {
    RuleDefault::new(name, check, SCOPES, description)
}

pub fn rules() -> Vec<RuleDefault> {
    let mut rules = vec![
        rule("admin_api", "role:admin", "Administrators."),
        rule("service_api", "role:service", "Other services."),
        rule("admin_or_service_api", "role:admin or role:service", "Administrators and other services."),
        RuleDefault::new(
            "project_reader_api",
            "role:reader and project_id:%(project_id)s",
            &[],
            "Readers of the project.",
        ),
        rule(
            "admin_or_project_reader_or_service_api",
            "role:admin or rule:project_reader_api or role:service",
            "Also readers of the project.",
        ),
        rule("placement:usages", "rule:admin_or_project_reader_or_service_api", "Usages of a project."),
        rule("placement:reshaper:reshape", "rule:service_api", "Move inventories and allocations between providers."),
    ];
    rules.extend(ADMIN_RULES.iter().map(|(name, description)| rule(name, ADMIN_OR_SERVICE, description)));
    rules
}

const ADMIN_RULES: &[(&str, &str)] = &[
    ("placement:resource_providers:list", "List resource providers."),
    ("placement:resource_providers:create", "Create a resource provider."),
    ("placement:resource_providers:show", "Show a resource provider."),
    ("placement:resource_providers:update", "Rename or move a resource provider."),
    ("placement:resource_providers:delete", "Delete a resource provider."),
    ("placement:resource_providers:inventories:list", "List inventories."),
    ("placement:resource_providers:inventories:create", "Create an inventory."),
    ("placement:resource_providers:inventories:show", "Show an inventory."),
    ("placement:resource_providers:inventories:update", "Update inventories."),
    ("placement:resource_providers:inventories:delete", "Delete inventories."),
    ("placement:resource_providers:aggregates:list", "List a provider's aggregates."),
    ("placement:resource_providers:aggregates:update", "Set a provider's aggregates."),
    ("placement:resource_providers:usages", "Show a provider's usages."),
    ("placement:resource_providers:allocations:list", "List a provider's allocations."),
    ("placement:resource_providers:traits:list", "List a provider's traits."),
    ("placement:resource_providers:traits:update", "Set a provider's traits."),
    ("placement:resource_providers:traits:delete", "Remove a provider's traits."),
    ("placement:resource_classes:list", "List resource classes."),
    ("placement:resource_classes:create", "Create a resource class."),
    ("placement:resource_classes:show", "Show a resource class."),
    ("placement:resource_classes:update", "Update a resource class."),
    ("placement:resource_classes:delete", "Delete a resource class."),
    ("placement:traits:list", "List traits."),
    ("placement:traits:show", "Show a trait."),
    ("placement:traits:update", "Create a trait."),
    ("placement:traits:delete", "Delete a trait."),
    ("placement:allocations:list", "List a consumer's allocations."),
    ("placement:allocations:manage", "Set allocations of several consumers."),
    ("placement:allocations:update", "Set a consumer's allocations."),
    ("placement:allocations:delete", "Delete a consumer's allocations."),
    ("placement:allocation_candidates:list", "List allocation candidates."),
];
