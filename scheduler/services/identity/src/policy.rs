//! Who may do what in identity: Keystone's rule names with its default checks and scopes.
//!
//! `target.X.Y` is member Y of the X acted on, loaded by the handler before it asks; a target that does
//! not exist has no members, so only a rule that looks at none of them (the administrator's) passes,
//! and nobody else learns from a 404 what there is.
mod federation;

use pilvi_kit::RuleDefault;

const ANY: &[&str] = &[];
const P: &[&str] = &["project"];
const SP: &[&str] = &["system", "project"];
const SDP: &[&str] = &["system", "domain", "project"];

const ADMIN: &str = "rule:admin_required";
const ADMIN_OR_SYSTEM_READER: &str = "rule:admin_required or (role:reader and system_scope:all)";
const PROJECT_VISIBLE: &str = "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.project.domain_id)s and not \
    None:%(target.project.domain_id)s) or project_id:%(target.project.id)s";
const PROJECT_MANAGED: &str = "(rule:admin_required) or (role:manager and domain_id:%(target.project.domain_id)s and not None:%(target.project.domain_id)s)";
const GROUP_VISIBLE: &str = "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.group.domain_id)s)";
const GROUP_MANAGED: &str = "(rule:admin_required) or (role:manager and domain_id:%(target.group.domain_id)s)";
const USER_MANAGED: &str = "(rule:admin_required) or (role:manager and token.domain.id:%(target.user.domain_id)s)";
const CREDENTIAL_VISIBLE: &str =
    "(rule:admin_required) or (role:reader and system_scope:all) or user_id:%(target.credential.user_id)s";
const CREDENTIAL_OWNED: &str = "(rule:admin_required) or user_id:%(target.credential.user_id)s";
const TRUST_VISIBLE: &str = "(rule:admin_required) or (role:reader and system_scope:all or user_id:%(target.trust.trustor_user_id)s or \
    user_id:%(target.trust.trustee_user_id)s)";
const ASSIGNMENTS_VISIBLE: &str = "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain_id)s and not \
    None:%(target.domain_id)s)";
const EC2_OWNED: &str = "(rule:admin_required) or (role:member and user_id:%(target.credential.user_id)s)";
const GRANT_CHECK: &str = "(rule:admin_required) or ((role:reader and system_scope:all) or ((role:reader and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:reader and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.domain.id)s) or (role:reader and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:reader and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.domain.id)s)) and (domain_id:%(target.role.domain_id)s or None:%(target.role.domain_id)s))";
const GRANT_LIST: &str = "(rule:admin_required) or ((role:reader and system_scope:all) or (role:reader and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:reader and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.domain.id)s) or (role:reader and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:reader and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.domain.id)s))";
const GRANT_CHANGE: &str = "(rule:admin_required) or ((role:admin and domain_id:%(target.user.domain_id)s and domain_id:%(target.project.domain_id)s) or \
    (role:admin and domain_id:%(target.user.domain_id)s and domain_id:%(target.domain.id)s) or (role:admin and \
    domain_id:%(target.group.domain_id)s and domain_id:%(target.project.domain_id)s) or (role:admin and \
    domain_id:%(target.group.domain_id)s and domain_id:%(target.domain.id)s)) and (domain_id:%(target.role.domain_id)s or \
    None:%(target.role.domain_id)s) or ((role:manager and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:manager and domain_id:%(target.user.domain_id)s and \
    domain_id:%(target.domain.id)s) or (role:manager and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.project.domain_id)s) or (role:manager and domain_id:%(target.group.domain_id)s and \
    domain_id:%(target.domain.id)s)) and rule:domain_managed_target_role";

const fn rule(
    name: &'static str,
    check: &'static str,
    scopes: &'static [&'static str],
    description: &'static str,
) -> RuleDefault {
    RuleDefault::new(name, check, scopes, description)
}

/// The rules of this service.
pub fn rules() -> Vec<RuleDefault> {
    [BASE, PEOPLE, PLACES, ROLES, CATALOG, SECRETS, OTHERS, federation::FEDERATION].concat()
}

/// Rules that others refer to, and those about tokens.
const BASE: &[RuleDefault] = &[
    rule("admin_required", "role:admin", ANY, "Admin required"),
    rule("service_role", "role:service", ANY, "Service role"),
    rule("service_or_admin", "rule:admin_required or rule:service_role", ANY, "Service or admin"),
    rule("owner", "user_id:%(user_id)s", ANY, "Owner"),
    rule("admin_or_owner", "rule:admin_required or rule:owner", ANY, "Admin or owner"),
    rule("token_subject", "user_id:%(target.token.user_id)s", ANY, "Token subject"),
    rule("admin_or_token_subject", "rule:admin_required or rule:token_subject", ANY, "Admin or token subject"),
    rule(
        "service_admin_or_token_subject",
        "rule:service_or_admin or rule:token_subject",
        ANY,
        "Service admin or token subject",
    ),
    rule(
        "domain_managed_target_role",
        "'manager':%(target.role.name)s or 'member':%(target.role.name)s or 'reader':%(target.role.name)s",
        ANY,
        "Domain managed target role",
    ),
    rule("identity:get_auth_projects", "", ANY, "Show auth projects"),
    rule("identity:get_auth_domains", "", ANY, "Show auth domains"),
    rule("identity:get_auth_system", "", ANY, "Show auth system"),
    rule("identity:list_revoke_events", "rule:service_or_admin", SP, "List revoke events"),
    rule("identity:s3tokens_validate", "rule:service_or_admin", SDP, "S3tokens validate"),
    rule("identity:ec2tokens_validate", "rule:service_or_admin", SDP, "Ec2tokens validate"),
    rule("identity:revocation_list", "rule:service_or_admin", SP, "Revocation list"),
    rule(
        "identity:check_token",
        "rule:admin_required or (role:reader and system_scope:all) or rule:token_subject",
        SDP,
        "Check token",
    ),
    rule(
        "identity:validate_token",
        "rule:admin_required or (role:reader and system_scope:all) or rule:service_role or rule:token_subject",
        SDP,
        "Validate token",
    ),
    rule("identity:revoke_token", "rule:admin_required or rule:token_subject", SDP, "Revoke token"),
    rule("identity:revoke_tokens_for_user", "rule:admin_or_owner", SDP, "Revoke tokens for user"),
];

/// Users and groups.
const PEOPLE: &[RuleDefault] = &[
    rule("identity:get_group", GROUP_VISIBLE, SDP, "Show group"),
    rule("identity:list_groups", GROUP_VISIBLE, SDP, "List groups"),
    rule(
        "identity:list_groups_for_user",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(user_id)s",
        SDP,
        "List groups for user",
    ),
    rule("identity:create_group", GROUP_MANAGED, SDP, "Create group"),
    rule("identity:update_group", GROUP_MANAGED, SDP, "Change group"),
    rule("identity:delete_group", GROUP_MANAGED, SDP, "Delete group"),
    rule("identity:list_users_in_group", GROUP_VISIBLE, SDP, "List users in group"),
    rule(
        "identity:remove_user_from_group",
        "(rule:admin_required) or (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
        SDP,
        "Remove user from group",
    ),
    rule(
        "identity:check_user_in_group",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
        SDP,
        "Check user in group",
    ),
    rule(
        "identity:add_user_to_group",
        "(rule:admin_required) or (role:manager and domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s)",
        SDP,
        "Add user to group",
    ),
    rule(
        "identity:get_user",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and token.domain.id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
        SDP,
        "Show user",
    ),
    rule(
        "identity:list_users",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain_id)s)",
        SDP,
        "List users",
    ),
    rule("identity:create_user", USER_MANAGED, SDP, "Create user"),
    rule("identity:update_user", USER_MANAGED, SDP, "Change user"),
    rule("identity:delete_user", USER_MANAGED, SDP, "Delete user"),
];

/// Domains and projects.
const PLACES: &[RuleDefault] = &[
    rule(
        "identity:get_domain",
        "rule:admin_required or (role:reader and system_scope:all) or token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s",
        SDP,
        "Show domain",
    ),
    rule(
        "identity:list_domains",
        "rule:admin_required or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain.id)s)",
        SDP,
        "List domains",
    ),
    rule("identity:create_domain", ADMIN, SP, "Create domain"),
    rule("identity:update_domain", ADMIN, SP, "Change domain"),
    rule("identity:delete_domain", ADMIN, SP, "Delete domain"),
    rule("identity:get_project", PROJECT_VISIBLE, SDP, "Show project"),
    rule(
        "identity:list_projects",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.domain_id)s)",
        SDP,
        "List projects",
    ),
    rule(
        "identity:list_user_projects",
        "(rule:admin_required) or (role:reader and system_scope:all) or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(target.user.id)s",
        SDP,
        "List user projects",
    ),
    rule("identity:create_project", PROJECT_MANAGED, SDP, "Create project"),
    rule("identity:update_project", PROJECT_MANAGED, SDP, "Change project"),
    rule("identity:delete_project", PROJECT_MANAGED, SDP, "Delete project"),
    rule("identity:list_project_tags", PROJECT_VISIBLE, SDP, "List project tags"),
    rule("identity:get_project_tag", PROJECT_VISIBLE, SDP, "Show project tag"),
    rule("identity:update_project_tags", PROJECT_MANAGED, SDP, "Change project tags"),
    rule("identity:create_project_tag", PROJECT_MANAGED, SDP, "Create project tag"),
    rule("identity:delete_project_tags", PROJECT_MANAGED, SDP, "Delete project tags"),
    rule("identity:delete_project_tag", PROJECT_MANAGED, SDP, "Delete project tag"),
    rule("identity:list_projects_for_user", "", ANY, "List projects for user"),
    rule("identity:list_domains_for_user", "", ANY, "List domains for user"),
];

/// Roles, what they imply, and who has them.
const ROLES: &[RuleDefault] = &[
    rule("identity:check_grant", GRANT_CHECK, SDP, "Check grant"),
    rule("identity:list_grants", GRANT_LIST, SDP, "List grants"),
    rule("identity:create_grant", GRANT_CHANGE, SDP, "Create grant"),
    rule("identity:revoke_grant", GRANT_CHANGE, SDP, "Revoke grant"),
    rule("identity:list_system_grants_for_user", ADMIN_OR_SYSTEM_READER, SP, "List system grants for user"),
    rule("identity:check_system_grant_for_user", ADMIN_OR_SYSTEM_READER, SP, "Check system grant for user"),
    rule("identity:create_system_grant_for_user", ADMIN, SP, "Create system grant for user"),
    rule("identity:revoke_system_grant_for_user", ADMIN, SP, "Revoke system grant for user"),
    rule("identity:list_system_grants_for_group", ADMIN_OR_SYSTEM_READER, SP, "List system grants for group"),
    rule("identity:check_system_grant_for_group", ADMIN_OR_SYSTEM_READER, SP, "Check system grant for group"),
    rule("identity:create_system_grant_for_group", ADMIN, SP, "Create system grant for group"),
    rule("identity:revoke_system_grant_for_group", ADMIN, SP, "Revoke system grant for group"),
    rule("identity:get_implied_role", ADMIN_OR_SYSTEM_READER, SP, "Show implied role"),
    rule("identity:list_implied_roles", ADMIN_OR_SYSTEM_READER, SP, "List implied roles"),
    rule("identity:create_implied_role", ADMIN, SP, "Create implied role"),
    rule("identity:delete_implied_role", ADMIN, SP, "Delete implied role"),
    rule("identity:list_role_inference_rules", ADMIN_OR_SYSTEM_READER, SP, "List role inference rules"),
    rule("identity:check_implied_role", ADMIN_OR_SYSTEM_READER, SP, "Check implied role"),
    rule(
        "identity:get_role",
        "(rule:admin_required or (role:reader and system_scope:all)) or (role:manager and rule:domain_managed_target_role)",
        SDP,
        "Show role",
    ),
    rule(
        "identity:list_roles",
        "(rule:admin_required or (role:reader and system_scope:all)) or (role:manager and not domain_id:None)",
        SDP,
        "List roles",
    ),
    rule("identity:create_role", ADMIN, SP, "Create role"),
    rule("identity:update_role", ADMIN, SP, "Change role"),
    rule("identity:delete_role", ADMIN, SP, "Delete role"),
    rule("identity:get_domain_role", ADMIN_OR_SYSTEM_READER, SP, "Show domain role"),
    rule("identity:list_domain_roles", ADMIN_OR_SYSTEM_READER, SP, "List domain roles"),
    rule("identity:create_domain_role", ADMIN, SP, "Create domain role"),
    rule("identity:update_domain_role", ADMIN, SP, "Change domain role"),
    rule("identity:delete_domain_role", ADMIN, SP, "Delete domain role"),
    rule("identity:list_role_assignments", ASSIGNMENTS_VISIBLE, SDP, "List role assignments"),
    rule("identity:list_role_assignments_for_tree", ASSIGNMENTS_VISIBLE, SDP, "List role assignments for tree"),
];

/// Regions, services and endpoints.
const CATALOG: &[RuleDefault] = &[
    rule("identity:get_auth_catalog", "", ANY, "Show auth catalog"),
    rule("identity:get_endpoint", ADMIN_OR_SYSTEM_READER, SP, "Show endpoint"),
    rule("identity:list_endpoints", ADMIN_OR_SYSTEM_READER, SP, "List endpoints"),
    rule("identity:create_endpoint", ADMIN, SP, "Create endpoint"),
    rule("identity:update_endpoint", ADMIN, SP, "Change endpoint"),
    rule("identity:delete_endpoint", ADMIN, SP, "Delete endpoint"),
    rule("identity:create_endpoint_group", ADMIN, SP, "Create endpoint group"),
    rule("identity:list_endpoint_groups", ADMIN_OR_SYSTEM_READER, SP, "List endpoint groups"),
    rule("identity:get_endpoint_group", ADMIN_OR_SYSTEM_READER, SP, "Show endpoint group"),
    rule("identity:update_endpoint_group", ADMIN, SP, "Change endpoint group"),
    rule("identity:delete_endpoint_group", ADMIN, SP, "Delete endpoint group"),
    rule(
        "identity:list_projects_associated_with_endpoint_group",
        ADMIN_OR_SYSTEM_READER,
        SP,
        "List projects associated with endpoint group",
    ),
    rule(
        "identity:list_endpoints_associated_with_endpoint_group",
        ADMIN_OR_SYSTEM_READER,
        SP,
        "List endpoints associated with endpoint group",
    ),
    rule("identity:get_endpoint_group_in_project", ADMIN_OR_SYSTEM_READER, SP, "Show endpoint group in project"),
    rule("identity:list_endpoint_groups_for_project", ADMIN_OR_SYSTEM_READER, SP, "List endpoint groups for project"),
    rule("identity:add_endpoint_group_to_project", ADMIN, SP, "Add endpoint group to project"),
    rule("identity:remove_endpoint_group_from_project", ADMIN, SP, "Remove endpoint group from project"),
    rule("identity:list_projects_for_endpoint", ADMIN_OR_SYSTEM_READER, SP, "List projects for endpoint"),
    rule("identity:add_endpoint_to_project", ADMIN, SP, "Add endpoint to project"),
    rule("identity:check_endpoint_in_project", ADMIN_OR_SYSTEM_READER, SP, "Check endpoint in project"),
    rule("identity:list_endpoints_for_project", ADMIN_OR_SYSTEM_READER, SP, "List endpoints for project"),
    rule("identity:remove_endpoint_from_project", ADMIN, SP, "Remove endpoint from project"),
    rule("identity:get_region", "", SDP, "Show region"),
    rule("identity:list_regions", "", SDP, "List regions"),
    rule("identity:create_region", ADMIN, SP, "Create region"),
    rule("identity:update_region", ADMIN, SP, "Change region"),
    rule("identity:delete_region", ADMIN, SP, "Delete region"),
    rule("identity:get_service", ADMIN_OR_SYSTEM_READER, SP, "Show service"),
    rule("identity:list_services", ADMIN_OR_SYSTEM_READER, SP, "List services"),
    rule("identity:create_service", ADMIN, SP, "Create service"),
    rule("identity:update_service", ADMIN, SP, "Change service"),
    rule("identity:delete_service", ADMIN, SP, "Delete service"),
];

/// What users hand to programs.
const SECRETS: &[RuleDefault] = &[
    rule(
        "identity:get_access_rule",
        "(role:reader and system_scope:all) or user_id:%(target.user.id)s",
        SP,
        "Show access rule",
    ),
    rule(
        "identity:list_access_rules",
        "(role:reader and system_scope:all) or user_id:%(target.user.id)s",
        SP,
        "List access rules",
    ),
    rule(
        "identity:delete_access_rule",
        "(role:admin and system_scope:all) or user_id:%(target.user.id)s",
        SP,
        "Delete access rule",
    ),
    rule(
        "identity:get_application_credential",
        "(rule:admin_required) or (role:reader and system_scope:all) or rule:owner",
        SP,
        "Show application credential",
    ),
    rule(
        "identity:list_application_credentials",
        "(rule:admin_required) or (role:reader and system_scope:all) or rule:owner",
        SP,
        "List application credentials",
    ),
    rule("identity:create_application_credential", "user_id:%(user_id)s", P, "Create application credential"),
    rule("identity:delete_application_credential", "rule:admin_or_owner", SP, "Delete application credential"),
    rule("identity:get_credential", CREDENTIAL_VISIBLE, SDP, "Show credential"),
    rule("identity:list_credentials", CREDENTIAL_VISIBLE, SDP, "List credentials"),
    rule("identity:create_credential", CREDENTIAL_OWNED, SDP, "Create credential"),
    rule("identity:update_credential", CREDENTIAL_OWNED, SDP, "Change credential"),
    rule("identity:delete_credential", CREDENTIAL_OWNED, SDP, "Delete credential"),
    rule("identity:ec2_get_credential", CREDENTIAL_VISIBLE, SP, "Ec2 get credential"),
    rule(
        "identity:ec2_list_credentials",
        "(rule:admin_required) or (role:reader and system_scope:all) or rule:owner",
        SP,
        "Ec2 list credentials",
    ),
    rule("identity:ec2_create_credential", EC2_OWNED, SP, "Ec2 create credential"),
    rule("identity:ec2_delete_credential", EC2_OWNED, SP, "Ec2 delete credential"),
    rule("identity:create_trust", "user_id:%(target.trust.trustor_user_id)s", P, "Create trust"),
    rule("identity:list_trusts", ADMIN_OR_SYSTEM_READER, SP, "List trusts"),
    rule(
        "identity:list_trusts_for_trustor",
        "(rule:admin_required) or (role:reader and system_scope:all or user_id:%(target.trust.trustor_user_id)s)",
        SP,
        "List trusts for trustor",
    ),
    rule(
        "identity:list_trusts_for_trustee",
        "(rule:admin_required) or (role:reader and system_scope:all or user_id:%(target.trust.trustee_user_id)s)",
        SP,
        "List trusts for trustee",
    ),
    rule("identity:list_roles_for_trust", TRUST_VISIBLE, SP, "List roles for trust"),
    rule("identity:get_role_for_trust", TRUST_VISIBLE, SP, "Show role for trust"),
    rule(
        "identity:delete_trust",
        "rule:admin_required or user_id:%(target.trust.trustor_user_id)s",
        SP,
        "Delete trust",
    ),
    rule("identity:get_trust", TRUST_VISIBLE, SP, "Show trust"),
];

/// Policies, domain configuration, limits, OAuth.
const OTHERS: &[RuleDefault] = &[
    rule("identity:get_consumer", ADMIN_OR_SYSTEM_READER, SP, "Show consumer"),
    rule("identity:list_consumers", ADMIN_OR_SYSTEM_READER, SP, "List consumers"),
    rule("identity:create_consumer", ADMIN, SP, "Create consumer"),
    rule("identity:update_consumer", ADMIN, SP, "Change consumer"),
    rule("identity:delete_consumer", ADMIN, SP, "Delete consumer"),
    rule("identity:create_domain_config", ADMIN, SP, "Create domain config"),
    rule("identity:get_domain_config", ADMIN_OR_SYSTEM_READER, SP, "Show domain config"),
    rule("identity:get_security_compliance_domain_config", "", SDP, "Show security compliance domain config"),
    rule("identity:update_domain_config", ADMIN, SP, "Change domain config"),
    rule("identity:delete_domain_config", ADMIN, SP, "Delete domain config"),
    rule("identity:get_domain_config_default", ADMIN_OR_SYSTEM_READER, SP, "Show domain config default"),
    rule("identity:get_limit_model", "", SDP, "Show limit model"),
    rule(
        "identity:get_limit",
        "rule:admin_required or (role:reader and system_scope:all) or (domain_id:%(target.limit.domain.id)s or domain_id:%(target.limit.project.domain_id)s) or (project_id:%(target.limit.project_id)s and not None:%(target.limit.project_id)s)",
        SDP,
        "Show limit",
    ),
    rule("identity:list_limits", "", SDP, "List limits"),
    rule("identity:create_limits", ADMIN, SP, "Create limits"),
    rule("identity:update_limit", ADMIN, SP, "Change limit"),
    rule("identity:delete_limit", ADMIN, SP, "Delete limit"),
    rule("identity:get_policy", ADMIN_OR_SYSTEM_READER, SP, "Show policy"),
    rule("identity:list_policies", ADMIN_OR_SYSTEM_READER, SP, "List policies"),
    rule("identity:create_policy", ADMIN, SP, "Create policy"),
    rule("identity:update_policy", ADMIN, SP, "Change policy"),
    rule("identity:delete_policy", ADMIN, SP, "Delete policy"),
    rule("identity:create_policy_association_for_endpoint", ADMIN, SP, "Create policy association for endpoint"),
    rule(
        "identity:check_policy_association_for_endpoint",
        ADMIN_OR_SYSTEM_READER,
        SP,
        "Check policy association for endpoint",
    ),
    rule("identity:delete_policy_association_for_endpoint", ADMIN, SP, "Delete policy association for endpoint"),
    rule("identity:create_policy_association_for_service", ADMIN, SP, "Create policy association for service"),
    rule(
        "identity:check_policy_association_for_service",
        ADMIN_OR_SYSTEM_READER,
        SP,
        "Check policy association for service",
    ),
    rule("identity:delete_policy_association_for_service", ADMIN, SP, "Delete policy association for service"),
    rule(
        "identity:create_policy_association_for_region_and_service",
        ADMIN,
        SP,
        "Create policy association for region and service",
    ),
    rule(
        "identity:check_policy_association_for_region_and_service",
        ADMIN_OR_SYSTEM_READER,
        SP,
        "Check policy association for region and service",
    ),
    rule(
        "identity:delete_policy_association_for_region_and_service",
        ADMIN,
        SP,
        "Delete policy association for region and service",
    ),
    rule("identity:get_policy_for_endpoint", ADMIN_OR_SYSTEM_READER, SP, "Show policy for endpoint"),
    rule("identity:list_endpoints_for_policy", ADMIN_OR_SYSTEM_READER, SP, "List endpoints for policy"),
    rule("identity:get_registered_limit", "", SDP, "Show registered limit"),
    rule("identity:list_registered_limits", "", SDP, "List registered limits"),
    rule("identity:create_registered_limits", ADMIN, SP, "Create registered limits"),
    rule("identity:update_registered_limit", ADMIN, SP, "Change registered limit"),
    rule("identity:delete_registered_limit", ADMIN, SP, "Delete registered limit"),
];
