//! Rule names and defaults, as Glance has them.
//!
//! Targets: `project_id` and `owner` of the image, its `visibility`, and `member_id` when the caller's
//! project is a member of it.
use pilvi_kit::RuleDefault;

const SCOPES: &[&str] = &["project"];
const ADMIN: &str = "rule:context_is_admin";
const MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const READER: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const CREATE: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s and project_id:%(owner)s)";
const GET: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const DOWNLOAD: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const SHARED_MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(member_id)s)";
const READER_OR_SHARED: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";
const NAMESPACE: &str =
    "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";
const SERVICE_OR_MEMBER: &str =
    "rule:service_api or (role:member and project_id:%(project_id)s and project_id:%(owner)s)";

/// name, default, what it allows
const RULES: &[(&str, &str, &str)] = &[
    ("add_image", CREATE, "Create an image."),
    ("delete_image", MEMBER, "Delete an image."),
    ("get_image", GET, "Show an image."),
    ("get_images", READER, "List images."),
    ("modify_image", MEMBER, "Update an image."),
    ("publicize_image", ADMIN, "Make an image public."),
    ("communitize_image", MEMBER, "Make an image a community image."),
    ("download_image", DOWNLOAD, "Download an image's data."),
    ("download_from_store", DOWNLOAD, "Choose the store that an image's data comes from."),
    ("upload_image", MEMBER, "Upload an image's data."),
    ("delete_image_location", ADMIN, "Delete an image's location."),
    ("get_image_location", READER, "Read an image's location."),
    ("set_image_location", MEMBER, "Set an image's location."),
    ("add_image_location", SERVICE_OR_MEMBER, "Add an image's location."),
    ("fetch_image_location", "rule:service_api", "Read an image's locations."),
    ("add_member", MEMBER, "Share an image."),
    ("delete_member", MEMBER, "Stop sharing an image."),
    ("get_member", READER_OR_SHARED, "Show a member."),
    ("get_members", READER_OR_SHARED, "List members."),
    ("modify_member", SHARED_MEMBER, "Accept or reject an image."),
    ("deactivate", MEMBER, "Deactivate an image."),
    ("reactivate", MEMBER, "Reactivate an image."),
    ("copy_image", ADMIN, "Copy an image to another store."),
    ("tasks_api_access", ADMIN, "Use the tasks API."),
    ("get_task", READER, "Show a task of an image."),
    ("cache_image", ADMIN, "Queue an image for the cache."),
    ("cache_list", ADMIN, "List what is cached."),
    ("cache_delete", ADMIN, "Remove images from the cache."),
    ("cache_clean", ADMIN, "Remove from the cache what no image has."),
    ("cache_prune", ADMIN, "Make the cache fit its limit."),
    ("list_cached_nodes", ADMIN, "Tell which nodes cache an image."),
    ("manage_image_cache", ADMIN, "Manage the cache."),
    ("stores_info_detail", "rule:context_is_admin or rule:service_api", "Show details of stores."),
    ("get_metadef_namespaces", READER, "List namespaces of metadata definitions."),
    ("get_metadef_namespace", NAMESPACE, "Show a namespace."),
    ("get_metadef_object", NAMESPACE, "Show an object."),
    ("get_metadef_objects", NAMESPACE, "List objects."),
    ("list_metadef_resource_types", NAMESPACE, "List resource types."),
    ("get_metadef_resource_type", NAMESPACE, "List resource types of a namespace."),
    ("get_metadef_property", NAMESPACE, "Show a property."),
    ("get_metadef_properties", NAMESPACE, "List properties."),
    ("get_metadef_tag", NAMESPACE, "Show a tag."),
    ("get_metadef_tags", NAMESPACE, "List tags."),
    ("modify_metadef_namespace", "rule:metadef_admin", "Update a namespace."),
    ("add_metadef_namespace", "rule:metadef_admin", "Create a namespace."),
    ("delete_metadef_namespace", "rule:metadef_admin", "Delete a namespace."),
    ("modify_metadef_object", "rule:metadef_admin", "Update a object."),
    ("add_metadef_object", "rule:metadef_admin", "Create a object."),
    ("delete_metadef_object", "rule:metadef_admin", "Delete a object."),
    ("add_metadef_resource_type_association", "rule:metadef_admin", "Create a resource type association."),
    ("remove_metadef_resource_type_association", "rule:metadef_admin", "Delete a resource type association."),
    ("modify_metadef_property", "rule:metadef_admin", "Update a property."),
    ("add_metadef_property", "rule:metadef_admin", "Create a property."),
    ("remove_metadef_property", "rule:metadef_admin", "Delete a property."),
    ("modify_metadef_tag", "rule:metadef_admin", "Update a tag."),
    ("add_metadef_tag", "rule:metadef_admin", "Create a tag."),
    ("add_metadef_tags", "rule:metadef_admin", "Create a tags."),
    ("delete_metadef_tag", "rule:metadef_admin", "Delete a tag."),
    ("delete_metadef_tags", "rule:metadef_admin", "Delete a tags."),
];

pub fn rules() -> Vec<RuleDefault> {
    let mut rules = vec![
        RuleDefault::new("default", "", &[], "Rules that say nothing else."),
        RuleDefault::new("context_is_admin", "role:admin", &[], "Administrators."),
        RuleDefault::new("metadef_default", "", &[], "Metadata definitions."),
        RuleDefault::new("metadef_admin", ADMIN, &[], "Whoever keeps metadata definitions."),
        RuleDefault::new("service_api", "role:service or role:admin", &[], "Other services."),
    ];
    rules.extend(RULES.iter().map(|(name, check, description)| RuleDefault::new(name, check, SCOPES, description)));
    rules
}
