//! What an operator may set, validated by whoever reads the configuration file.
use crate::{import::ImportConfig, plugin::Limits, store::StoreConfig};
use pilvi_disk::{Rules, format::VMDK_TYPES};
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, Clone)]
pub struct Config {
    /// Where bytes are staged, and where images live unless stores are configured; made with mode 0700.
    pub directory: PathBuf,
    /// Stores by their ids; none: one directory, called `file`.
    pub stores: BTreeMap<String, StoreConfig>,
    /// The store that is meant when none is named; needed when several take images.
    pub default_store: Option<String>,
    /// Images show their `locations`, and patches may change them.
    pub show_locations: bool,
    /// Images show the URL that their data is read from.
    pub show_direct_url: bool,
    /// Where the cache is: on this machine, even if `directory` is shared with other schedulers.
    pub cache_directory: PathBuf,
    /// Bytes of remote images that are kept on this machine; 0: none.
    pub cache_size_max: u64,
    /// The usual metadata definitions are put into the store at the first start.
    pub metadef_catalogue: bool,
    /// Bytes of one image at most.
    pub size_max: u64,
    /// Bytes of the disk that an image describes at most: a few KiB of qcow2 can describe exabytes.
    pub virtual_size_max: u64,
    /// Bytes of all images of one project at most; `None`: no limit.
    pub project_size_max: Option<u64>,
    /// Uploads that run at once; more are told to come back.
    pub uploads_max: usize,
    /// Images must hold what their `disk_format` says, and nothing that could harm a host. Off, whatever comes is kept.
    pub match_format: bool,
    /// Locations that are added are read, and images told what they hold. Off, they are believed.
    pub hash_locations: bool,
    /// Names of checks on partition tables that do not matter (`mbr`).
    pub gpt_nonfatal: Vec<String>,
    /// Kinds of VMDK that are taken, of those that are one file.
    pub vmdk_types: Vec<String>,
    /// What imports may do.
    pub import: ImportConfig,
    /// Certificates of those who sign images, as `<uuid>.pem`.
    pub certificates: Option<PathBuf>,
    /// The region this service is catalogued in: imports from an image of the same region are copies here.
    pub region: String,
}

const GIB: u64 = 1 << 30;

impl Config {
    /// The defaults, with images' bytes in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Config {
            cache_directory: directory.join("cache"),
            directory,
            stores: BTreeMap::new(),
            default_store: None,
            show_locations: false,
            show_direct_url: false,
            cache_size_max: 0,
            metadef_catalogue: true,
            size_max: 1024 * GIB,
            virtual_size_max: 16 * 1024 * GIB,
            project_size_max: None,
            uploads_max: 32,
            match_format: true,
            hash_locations: true,
            gpt_nonfatal: Vec::new(),
            vmdk_types: VMDK_TYPES.map(str::to_owned).to_vec(),
            import: ImportConfig::default(),
            certificates: None,
            region: "RegionOne".to_owned(),
        }
    }

    /// What is asked of a file's content.
    pub fn rules(&self) -> Rules {
        Rules {
            virtual_max: self.virtual_size_max,
            match_format: self.match_format,
            gpt_nonfatal: self.gpt_nonfatal.clone(),
            vmdk_types: self.vmdk_types.clone(),
            raw_discs: true,
        }
    }

    /// What plug-ins keep to.
    pub fn limits(&self) -> Limits {
        Limits { size_max: self.size_max, rules: self.rules() }
    }
}
