//! Rule names and their defaults, as Neutron's new defaults spell them.
//!
//! Rules see the record's members, plus `network_project_id` (the owner of a port's or subnet's network)
//! and `group_project_id` (the owner of a rule's security group). Rules of single attributes are made by
//! [`rules`] from the resources' tables, so none can be forgotten.
use pilvi_kit::RuleDefault;

const ADMIN: &str = "rule:admin_only";
const MEMBER: &str = "rule:admin_only or (role:member and project_id:%(project_id)s)";
const MANAGER: &str = "rule:admin_only or (role:manager and project_id:%(project_id)s)";
const READER: &str = "rule:admin_only or (role:reader and project_id:%(project_id)s)";
const SERVICE: &str = "rule:admin_only or role:service";
const OPEN_READER: &str =
    "rule:admin_only or role:service or (role:reader and project_id:%(project_id)s) or rule:shared or rule:external";
const NET_MEMBER: &str = "rule:admin_only or role:service or (role:member and rule:network_owner)";
const NET_MEMBER_OR_OWNER: &str = "rule:admin_only or role:service or (role:member and rule:network_owner) or (role:member and project_id:%(project_id)s)";
const SUBNET_READER: &str = "rule:admin_only or role:service or (role:reader and project_id:%(project_id)s) or (role:reader and rule:network_owner) or rule:shared or rule:external";
const PORT_READER: &str = "rule:admin_only or role:service or (role:reader and rule:network_owner) or (role:reader and project_id:%(project_id)s)";
const SHARED_READER: &str = "rule:admin_only or (role:reader and project_id:%(project_id)s) or rule:shared";
const ANY: &str = "@";

const PROJECT: &[&str] = &["project"];

const fn rule(name: &'static str, check: &'static str) -> RuleDefault {
    RuleDefault::new(name, check, PROJECT, "")
}

const BASE: &[RuleDefault] = &[
    RuleDefault::new("admin_only", "role:admin", &[], "Cloud administrators."),
    RuleDefault::new("context_is_admin", "role:admin", &[], "Cloud administrators."),
    RuleDefault::new("shared", "True:%(shared)s", &[], "What its owner shares with all projects."),
    RuleDefault::new(
        "external",
        "True:%(external_to_caller)s",
        &[],
        "Networks that the caller's routers may have as gateway.",
    ),
    RuleDefault::new(
        "network_owner",
        "project_id:%(network_project_id)s",
        &[],
        "The owner of the port's or subnet's network.",
    ),
    rule("create_network", MEMBER),
    rule("create_network:shared", ADMIN),
    rule("create_network:router:external", ADMIN),
    rule("create_network:is_default", ADMIN),
    rule("create_network:port_security_enabled", MEMBER),
    rule("create_network:mtu", MEMBER),
    rule("create_network:provider:network_type", ADMIN),
    rule("create_network:provider:physical_network", ADMIN),
    rule("create_network:provider:segmentation_id", ADMIN),
    rule("get_network", OPEN_READER),
    rule("get_network:provider:network_type", ADMIN),
    rule("get_network:provider:physical_network", ADMIN),
    rule("get_network:provider:segmentation_id", ADMIN),
    rule("update_network", MEMBER),
    rule("update_network:shared", ADMIN),
    rule("update_network:router:external", ADMIN),
    rule("update_network:is_default", ADMIN),
    rule("update_network:port_security_enabled", MEMBER),
    rule("update_network:mtu", MEMBER),
    rule("delete_network", MEMBER),
    rule("create_subnet", NET_MEMBER),
    rule("get_subnet", SUBNET_READER),
    rule("update_subnet", NET_MEMBER_OR_OWNER),
    rule("delete_subnet", NET_MEMBER_OR_OWNER),
    rule("create_subnetpool", MEMBER),
    rule("create_subnetpool:shared", ADMIN),
    rule("create_subnetpool:is_default", ADMIN),
    rule("get_subnetpool", SHARED_READER),
    rule("update_subnetpool", MEMBER),
    rule("update_subnetpool:is_default", ADMIN),
    rule("delete_subnetpool", MEMBER),
    rule("create_port", "rule:admin_only or role:service or (role:member and project_id:%(project_id)s)"),
    rule("create_port:device_owner", ANY),
    rule("create_port:device_id", ANY),
    rule("create_port:mac_address", NET_MEMBER),
    rule(
        "create_port:fixed_ips",
        "rule:admin_only or role:service or (role:member and rule:network_owner) or rule:shared",
    ),
    rule("create_port:fixed_ips:ip_address", NET_MEMBER),
    rule("create_port:port_security_enabled", NET_MEMBER),
    rule("create_port:binding:host_id", SERVICE),
    rule("create_port:binding:profile", SERVICE),
    rule(
        "create_port:binding:vnic_type",
        "rule:admin_only or role:service or (role:member and project_id:%(project_id)s)",
    ),
    rule("create_port:allowed_address_pairs", NET_MEMBER),
    rule("create_port:trusted", ADMIN),
    rule("get_port:trusted", ADMIN),
    rule("get_port:resource_request", SERVICE),
    rule("update_port:trusted", ADMIN),
    rule("network_device", "rule:admin_only or role:service or (role:member and rule:network_owner)"),
    rule("get_port", PORT_READER),
    rule("get_port:binding:vif_type", SERVICE),
    rule("get_port:binding:vif_details", SERVICE),
    rule("get_port:binding:host_id", SERVICE),
    rule("get_port:binding:profile", SERVICE),
    rule("update_port", "rule:admin_only or role:service or (role:member and project_id:%(project_id)s)"),
    rule("update_port:device_owner", ANY),
    rule("update_port:device_id", ANY),
    rule("update_port:mac_address", SERVICE),
    rule("update_port:fixed_ips", NET_MEMBER_FIXED),
    rule("update_port:fixed_ips:ip_address", NET_MEMBER),
    rule("update_port:port_security_enabled", NET_MEMBER),
    rule("update_port:binding:host_id", SERVICE),
    rule("update_port:binding:profile", SERVICE),
    rule(
        "update_port:binding:vnic_type",
        "rule:admin_only or role:service or (role:member and project_id:%(project_id)s)",
    ),
    rule("update_port:allowed_address_pairs", NET_MEMBER),
    rule("update_port:data_plane_status", "rule:admin_only or role:data_plane_integrator"),
    rule("create_port:numa_affinity_policy", ADMIN),
    rule("get_port:numa_affinity_policy", ADMIN),
    rule("update_port:numa_affinity_policy", ADMIN),
    rule("delete_port", NET_MEMBER_OR_OWNER),
    rule("get_port_binding", SERVICE),
    rule("create_port_binding", SERVICE),
    rule("update_port_binding", SERVICE),
    rule("delete_port_binding", SERVICE),
    rule("activate", SERVICE),
    rule("create_router", MEMBER),
    rule("create_router:distributed", ADMIN),
    rule("create_router:ha", ADMIN),
    rule("create_router:external_gateway_info:enable_snat", ADMIN),
    rule("create_router:external_gateway_info:external_fixed_ips", ADMIN),
    rule("get_router", READER),
    rule("get_router:distributed", ADMIN),
    rule("get_router:ha", ADMIN),
    rule("update_router", MEMBER),
    rule("update_router:distributed", ADMIN),
    rule("update_router:ha", ADMIN),
    rule("update_router:external_gateway_info:enable_snat", ADMIN),
    rule("update_router:external_gateway_info:external_fixed_ips", ADMIN),
    rule("delete_router", MEMBER),
    rule("add_router_interface", MEMBER),
    rule("remove_router_interface", MEMBER),
    rule("add_extraroutes", MEMBER),
    rule("remove_extraroutes", MEMBER),
    rule("add_external_gateways", MEMBER),
    rule("add_external_gateways:external_gateways", MEMBER),
    rule("add_external_gateways:external_gateways:network_id", MEMBER),
    rule("add_external_gateways:external_gateways:enable_snat", ADMIN),
    rule("add_external_gateways:external_gateways:external_fixed_ips", ADMIN),
    rule("update_external_gateways", MEMBER),
    rule("update_external_gateways:external_gateways", MEMBER),
    rule("update_external_gateways:external_gateways:network_id", MEMBER),
    rule("update_external_gateways:external_gateways:enable_snat", ADMIN),
    rule("update_external_gateways:external_gateways:external_fixed_ips", ADMIN),
    rule("remove_external_gateways", MEMBER),
    rule("remove_external_gateways:external_gateways", MEMBER),
    rule("create_router:enable_default_route_ecmp", ADMIN),
    rule("update_router:enable_default_route_ecmp", ADMIN),
    rule("create_floatingip", MEMBER),
    rule("create_floatingip:floating_ip_address", ADMIN),
    rule("get_floatingip", READER),
    rule("update_floatingip", MEMBER),
    rule("delete_floatingip", MEMBER),
    rule("create_floatingip_port_forwarding", MEMBER),
    rule("get_floatingip_port_forwarding", READER),
    rule("update_floatingip_port_forwarding", MEMBER),
    rule("delete_floatingip_port_forwarding", MEMBER),
    rule("create_security_group", MEMBER),
    rule("get_security_group", SHARED_READER),
    rule("update_security_group", MEMBER),
    rule("delete_security_group", MEMBER),
    rule("create_security_groups_default_statefulness", MANAGER),
    rule("get_security_groups_default_statefulness", READER),
    rule("update_security_groups_default_statefulness", MANAGER),
    rule("delete_security_groups_default_statefulness", MANAGER),
    rule("create_security_group_rule", MEMBER),
    rule(
        "get_security_group_rule",
        "rule:admin_only or (role:reader and project_id:%(project_id)s) or (role:reader and project_id:%(group_project_id)s)",
    ),
    rule(
        "delete_security_group_rule",
        "rule:admin_only or (role:member and project_id:%(project_id)s) or (role:member and project_id:%(group_project_id)s)",
    ),
    RuleDefault::new(
        "restrict_wildcard",
        "(not '*':%(target_tenant)s) or rule:admin_only",
        &[],
        "Only administrators open things to every project.",
    ),
    rule("create_rbac_policy", MEMBER),
    rule("create_rbac_policy:target_tenant", "rule:restrict_wildcard"),
    rule("get_rbac_policy", READER),
    rule("update_rbac_policy", MEMBER),
    rule("update_rbac_policy:target_tenant", "rule:restrict_wildcard"),
    rule("delete_rbac_policy", MEMBER),
    rule("create_address_scope", MEMBER),
    rule("create_address_scope:shared", ADMIN),
    rule("get_address_scope", SHARED_READER),
    rule("update_address_scope", MEMBER),
    rule("update_address_scope:shared", ADMIN),
    rule("delete_address_scope", MEMBER),
    rule("create_address_group", MEMBER),
    rule("get_address_group", SHARED_READER),
    rule("update_address_group", MEMBER),
    rule("delete_address_group", MEMBER),
    rule("add_prefixes", MEMBER),
    rule("remove_prefixes", MEMBER),
    rule("onboard_network_subnets", MEMBER),
    rule("get_default_security_group_rule", "rule:admin_only or role:reader"),
    rule("create_default_security_group_rule", ADMIN),
    rule("delete_default_security_group_rule", ADMIN),
    rule("create_network:segments", ADMIN),
    rule("get_network:segments", ADMIN),
    rule("create_subnet:segment_id", ADMIN),
    rule("get_subnet:segment_id", ADMIN),
    rule("update_subnet:segment_id", ADMIN),
    rule("create_segment", ADMIN),
    rule("get_segment", ADMIN),
    rule("update_segment", ADMIN),
    rule("delete_segment", ADMIN),
    rule("get_network_segment_range", ADMIN),
    rule("create_network_segment_range", ADMIN),
    rule("update_network_segment_range", ADMIN),
    rule("delete_network_segment_range", ADMIN),
    rule("create_metering_label", MANAGER),
    rule("get_metering_label", READER),
    rule("delete_metering_label", MANAGER),
    rule("create_metering_label_rule", MANAGER),
    rule("get_metering_label_rule", READER),
    rule("delete_metering_label_rule", MANAGER),
    rule("create_local_ip", MEMBER),
    rule("get_local_ip", READER),
    rule("update_local_ip", MEMBER),
    rule("delete_local_ip", MEMBER),
    rule("create_local_ip_port_association", MEMBER),
    rule("get_local_ip_port_association", READER),
    rule("delete_local_ip_port_association", MEMBER),
    rule("create_ndp_proxy", MEMBER),
    rule("get_ndp_proxy", READER),
    rule("update_ndp_proxy", MEMBER),
    rule("delete_ndp_proxy", MEMBER),
    rule("create_router_conntrack_helper", MEMBER),
    rule("get_router_conntrack_helper", READER),
    rule("update_router_conntrack_helper", MEMBER),
    rule("delete_router_conntrack_helper", MEMBER),
    rule("create_tap_service", MEMBER),
    rule("get_tap_service", READER),
    rule("update_tap_service", MEMBER),
    rule("delete_tap_service", MEMBER),
    rule("create_tap_flow", MEMBER),
    rule("get_tap_flow", READER),
    rule("update_tap_flow", MEMBER),
    rule("delete_tap_flow", MEMBER),
    rule("get_loggable_resource", MANAGER),
    rule("create_log", MANAGER),
    rule("get_log", MANAGER),
    rule("update_log", MANAGER),
    rule("delete_log", MANAGER),
    rule("create_trunk", MEMBER),
    rule("get_trunk", READER),
    rule("update_trunk", MEMBER),
    rule("delete_trunk", MEMBER),
    rule("get_subports", READER),
    rule("add_subports", MEMBER),
    rule("remove_subports", MEMBER),
    rule("create_policy", MANAGER),
    rule("get_policy", SHARED_READER),
    rule("update_policy", MANAGER),
    rule("delete_policy", MANAGER),
    rule("get_rule_type", "role:reader"),
    rule("create_policy_bandwidth_limit_rule", MANAGER),
    rule("get_policy_bandwidth_limit_rule", READER),
    rule("update_policy_bandwidth_limit_rule", MANAGER),
    rule("delete_policy_bandwidth_limit_rule", MANAGER),
    rule("create_policy_packet_rate_limit_rule", MANAGER),
    rule("get_policy_packet_rate_limit_rule", READER),
    rule("update_policy_packet_rate_limit_rule", MANAGER),
    rule("delete_policy_packet_rate_limit_rule", MANAGER),
    rule("create_policy_dscp_marking_rule", MANAGER),
    rule("get_policy_dscp_marking_rule", READER),
    rule("update_policy_dscp_marking_rule", MANAGER),
    rule("delete_policy_dscp_marking_rule", MANAGER),
    rule("create_policy_minimum_bandwidth_rule", MANAGER),
    rule("get_policy_minimum_bandwidth_rule", READER),
    rule("update_policy_minimum_bandwidth_rule", MANAGER),
    rule("delete_policy_minimum_bandwidth_rule", MANAGER),
    rule("get_alias_minimum_bandwidth_rule", READER),
    rule("update_alias_minimum_bandwidth_rule", MANAGER),
    rule("delete_alias_minimum_bandwidth_rule", MANAGER),
    rule("create_policy_minimum_packet_rate_rule", MANAGER),
    rule("get_policy_minimum_packet_rate_rule", READER),
    rule("update_policy_minimum_packet_rate_rule", MANAGER),
    rule("delete_policy_minimum_packet_rate_rule", MANAGER),
    rule("get_alias_minimum_packet_rate_rule", READER),
    rule("update_alias_minimum_packet_rate_rule", MANAGER),
    rule("delete_alias_minimum_packet_rate_rule", MANAGER),
    rule("get_alias_bandwidth_limit_rule", READER),
    rule("update_alias_bandwidth_limit_rule", MANAGER),
    rule("delete_alias_bandwidth_limit_rule", MANAGER),
    rule("get_alias_dscp_marking_rule", READER),
    rule("update_alias_dscp_marking_rule", MANAGER),
    rule("delete_alias_dscp_marking_rule", MANAGER),
    rule("get_flavor", "rule:admin_only or role:reader"),
    rule("create_flavor", ADMIN),
    rule("update_flavor", ADMIN),
    rule("delete_flavor", ADMIN),
    rule("get_service_profile", ADMIN),
    rule("create_service_profile", ADMIN),
    rule("update_service_profile", ADMIN),
    rule("delete_service_profile", ADMIN),
    rule("create_flavor_service_profile", ADMIN),
    rule("delete_flavor_service_profile", ADMIN),
    rule("get_floatingip_pool", READER),
    rule("add_addresses", MEMBER),
    rule("remove_addresses", MEMBER),
    rule("get_quota", READER),
    rule("update_quota", ADMIN),
    rule("delete_quota", ADMIN),
    rule("get_agent", ADMIN),
    rule("update_agent", ADMIN),
    rule("delete_agent", ADMIN),
    rule("get_dhcp-networks", ADMIN),
    rule("create_dhcp-network", ADMIN),
    rule("delete_dhcp-network", ADMIN),
    rule("get_dhcp-agents", ADMIN),
    rule("get_l3-routers", ADMIN),
    rule("create_l3-router", ADMIN),
    rule("delete_l3-router", ADMIN),
    rule("get_l3-agents", ADMIN),
    rule("get_availability_zone", ANY),
    rule("get_service_provider", ANY),
    rule("get_network_ip_availability", ADMIN),
    rule("get_auto_allocated_topology", READER),
    rule("delete_auto_allocated_topology", MEMBER),
    rule("get_extension", ANY),
];

const NET_MEMBER_FIXED: &str =
    "rule:admin_only or role:service or (role:member and rule:network_owner) or (role:member and rule:shared)";

/// All rules of this service.
pub fn rules() -> Vec<RuleDefault> {
    let mut rules = BASE.to_vec();
    rules.extend(crate::tag::rules());
    rules.sort_by_key(|r| r.name);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_ruled_attribute_has_its_rules() {
        let names: HashSet<&str> = rules().iter().map(|r| r.name).collect();
        assert_eq!(names.len(), rules().len(), "a rule is listed twice");
        for res in crate::RESOURCES {
            for attr in res.all() {
                let mut need = Vec::new();
                if attr.ruled && attr.post {
                    need.push(format!("create_{}:{}", res.name, attr.name));
                }
                if attr.ruled && attr.put {
                    need.push(format!("update_{}:{}", res.name, attr.name));
                }
                if attr.restricted {
                    need.push(format!("get_{}:{}", res.name, attr.name));
                }
                for rule in need {
                    assert!(names.contains(rule.as_str()), "{rule} is not defined");
                }
            }
        }
    }
}
