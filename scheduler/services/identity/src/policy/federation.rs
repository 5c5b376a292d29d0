//! Rules of federation and of access given to programs.
use super::{ADMIN, ADMIN_OR_SYSTEM_READER, P, SP, rule};
use pilvi_kit::RuleDefault;

pub(super) const FEDERATION: &[RuleDefault] = &[
    rule("identity:create_identity_provider", ADMIN, SP, "Create identity provider"),
    rule("identity:list_identity_providers", ADMIN_OR_SYSTEM_READER, SP, "List identity providers"),
    rule("identity:get_identity_provider", ADMIN_OR_SYSTEM_READER, SP, "Show identity provider"),
    rule("identity:update_identity_provider", ADMIN, SP, "Change identity provider"),
    rule("identity:delete_identity_provider", ADMIN, SP, "Delete identity provider"),
    rule("identity:create_mapping", ADMIN, SP, "Create mapping"),
    rule("identity:list_mappings", ADMIN_OR_SYSTEM_READER, SP, "List mappings"),
    rule("identity:get_mapping", ADMIN_OR_SYSTEM_READER, SP, "Show mapping"),
    rule("identity:update_mapping", ADMIN, SP, "Change mapping"),
    rule("identity:delete_mapping", ADMIN, SP, "Delete mapping"),
    rule("identity:create_protocol", ADMIN, SP, "Create protocol"),
    rule("identity:list_protocols", ADMIN_OR_SYSTEM_READER, SP, "List protocols"),
    rule("identity:get_protocol", ADMIN_OR_SYSTEM_READER, SP, "Show protocol"),
    rule("identity:update_protocol", ADMIN, SP, "Change protocol"),
    rule("identity:delete_protocol", ADMIN, SP, "Delete protocol"),
    rule("identity:create_service_provider", ADMIN, SP, "Create service provider"),
    rule("identity:list_service_providers", ADMIN_OR_SYSTEM_READER, SP, "List service providers"),
    rule("identity:get_service_provider", ADMIN_OR_SYSTEM_READER, SP, "Show service provider"),
    rule("identity:update_service_provider", ADMIN, SP, "Change service provider"),
    rule("identity:delete_service_provider", ADMIN, SP, "Delete service provider"),
    rule("identity:authorize_request_token", ADMIN, P, "Authorize an OAuth 1 request token"),
    rule("identity:get_access_token", ADMIN, P, "Show access token"),
    rule("identity:get_access_token_role", ADMIN, P, "Show a role of an access token"),
    rule("identity:list_access_tokens", ADMIN, P, "List access tokens"),
    rule("identity:list_access_token_roles", ADMIN, P, "List roles of an access token"),
    rule("identity:delete_access_token", ADMIN, P, "Delete access token"),
];
