//! Rule names and defaults of the compute API, as Nova names them.
use pilvi_kit::{
    RuleDefault,
    policy::{ADMIN, PROJECT_MANAGER_OR_ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN},
};

const SCOPES: &[&str] = &["project"];
const API: &str = "os_compute_api:";

/// What a project's readers may do.
const READER: &[&str] = &[
    "servers:index",
    "servers:detail",
    "servers:show",
    "server-metadata:index",
    "server-metadata:show",
    "os-server-tags:index",
    "os-server-tags:show",
    "ips:index",
    "ips:show",
    "os-security-groups:list",
    "os-security-groups:get",
    "os-security-groups:show",
    "os-volumes:list",
    "os-volumes:detail",
    "os-volumes:show",
    "os-volumes:snapshots:list",
    "os-volumes:snapshots:detail",
    "os-volumes:snapshots:show",
    "os-floating-ips:list",
    "os-floating-ips:show",
    "os-networks:list",
    "os-networks:show",
    "os-tenant-networks:list",
    "os-tenant-networks:show",
    "os-attach-interfaces:list",
    "os-attach-interfaces:show",
    "os-volumes-attachments:index",
    "os-volumes-attachments:show",
    "os-instance-actions:list",
    "os-instance-actions:show",
    "os-server-groups:index",
    "os-server-groups:show",
    "os-simple-tenant-usage:show",
    "os-quota-sets:show",
    "os-quota-sets:detail",
    "os-flavor-extra-specs:index",
    "os-flavor-extra-specs:show",
    "os-console-output-read",
    "os-server-password:show",
];

/// What its members may do.
const MEMBER: &[&str] = &[
    "servers:create",
    "servers:create:attach_network",
    "servers:create:attach_volume",
    "servers:create:trusted_certs",
    "servers:update",
    "servers:delete",
    "servers:start",
    "servers:stop",
    "servers:reboot",
    "servers:rebuild",
    "servers:resize",
    "servers:confirm_resize",
    "servers:revert_resize",
    "servers:create_image",
    "server-metadata:create",
    "server-metadata:update_all",
    "server-metadata:update",
    "server-metadata:delete",
    "os-server-tags:update_all",
    "os-server-tags:delete_all",
    "os-server-tags:update",
    "os-server-tags:delete",
    "os-pause-server:pause",
    "os-pause-server:unpause",
    "os-suspend-server:suspend",
    "os-suspend-server:resume",
    "os-lock-server:lock",
    "os-lock-server:unlock",
    "os-console-output",
    "os-server-password:clear",
    "os-deferred-delete:force",
    "os-attach-interfaces:create",
    "os-attach-interfaces:delete",
    "os-server-groups:create",
    "os-server-groups:delete",
    "os-volumes-attachments:create",
    "os-volumes-attachments:update",
    "os-volumes-attachments:delete",
    "os-security-groups:add",
    "os-security-groups:remove",
    "os-security-groups:create",
    "os-security-groups:update",
    "os-security-groups:delete",
    "os-security-groups:rule:create",
    "os-security-groups:rule:delete",
    "os-volumes:create",
    "os-volumes:delete",
    "os-volumes:snapshots:create",
    "os-volumes:snapshots:delete",
    "os-floating-ips:create",
    "os-floating-ips:delete",
    "os-floating-ips:add",
    "os-floating-ips:remove",
    "os-multinic:add",
    "os-multinic:remove",
];

/// What managers of a project may do with its servers.
const MANAGER: &[&str] = &[
    "os-migrate-server:migrate",
    "os-migrate-server:migrate_live",
    "os-migrations:index",
    "servers:migrations:index",
    "servers:migrations:delete",
    "servers:migrations:force_complete",
];

/// What only administrators may do.
const ADMINS: &[&str] = &[
    "servers:index:get_all_tenants",
    "servers:detail:get_all_tenants",
    "servers:create:forced_host",
    "servers:show:host_status",
    "servers:detail:fault_details",
    "servers:allow_all_filters",
    "servers:migrations:show",
    "servers:migrations:index:host",
    "os-migrations:index:all_projects",
    "os-migrations:index:host",
    "os-migrate-server:migrate:host",
    "os-migrate-server:migrate_live:host",
    "os-extended-server-attributes",
    "os-server-diagnostics",
    "os-lock-server:unlock:unlock_override",
    "os-admin-actions:reset_state",
    "os-instance-actions:events",
    "os-instance-actions:events:details",
    "os-server-groups:index:all_projects",
    "os-flavor-manage:create",
    "os-flavor-manage:update",
    "os-flavor-manage:delete",
    "os-flavor-access",
    "os-flavor-access:add_tenant_access",
    "os-flavor-access:remove_tenant_access",
    "os-flavor-extra-specs:create",
    "os-flavor-extra-specs:update",
    "os-flavor-extra-specs:delete",
    "os-hypervisors:list",
    "os-hypervisors:list-detail",
    "os-hypervisors:show",
    "os-hypervisors:statistics",
    "os-hypervisors:uptime",
    "os-hypervisors:search",
    "os-hypervisors:servers",
    "os-services:list",
    "os-services:update",
    "os-services:delete",
    "os-aggregates:index",
    "os-aggregates:show",
    "os-aggregates:create",
    "os-aggregates:update",
    "os-aggregates:delete",
    "os-aggregates:add_host",
    "os-aggregates:remove_host",
    "os-aggregates:set_metadata",
    "os-availability-zone:detail",
    "os-quota-sets:update",
    "os-quota-sets:delete",
    "os-quota-class-sets:show",
    "os-quota-class-sets:update",
    "os-simple-tenant-usage:list",
    "os-tenant-networks",
    "limits:other_project",
];

/// What anybody with a token may do.
const ANYONE: &[&str] =
    &["flavors", "limits", "os-availability-zone:list", "extensions", "os-floating-ip-pools", "os-quota-sets:defaults"];

/// Key pairs belong to users, not to projects.
const KEYPAIRS: &[&str] = &["os-keypairs:index", "os-keypairs:show", "os-keypairs:create", "os-keypairs:delete"];

/// Every rule of the service.
pub fn rules() -> Vec<RuleDefault> {
    let mut rules = vec![
        RuleDefault::new(
            "compute:servers:create:requested_destination",
            ADMIN,
            SCOPES,
            "Name the host of a new server",
        ),
        RuleDefault::new(
            "os_compute_api:os-volumes-attachments:swap",
            "(role:admin) or (role:service)",
            SCOPES,
            "Swap a server's volume for another",
        ),
        RuleDefault::new("manager_or_admin", PROJECT_MANAGER_OR_ADMIN, SCOPES, "Managers of the project"),
    ];
    let owner = "(role:admin) or user_id:%(user_id)s";
    for (names, check) in [
        (READER, PROJECT_READER_OR_ADMIN),
        (MEMBER, PROJECT_MEMBER_OR_ADMIN),
        (MANAGER, PROJECT_MANAGER_OR_ADMIN),
        (ADMINS, ADMIN),
        (ANYONE, "@"),
        (KEYPAIRS, owner),
    ] {
        for name in names {
            // Rule names live as long as the process: they are made once, at start.
            let name: &'static str = Box::leak(format!("{API}{name}").into_boxed_str());
            rules.push(RuleDefault::new(name, check, SCOPES, ""));
        }
    }
    rules
}
