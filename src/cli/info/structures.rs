//! The structures of a VHD as JSON.

use serde::Serialize;

use crate::vhd::{DynamicHeader, Field, Footer, ParentPath, PlatformCode};

#[derive(Debug, Serialize)]
pub(super) struct FooterInfo {
    features: u32,
    file_format_version: String,
    /// `null` means all ones: a fixed disk has no dynamic disk header.
    data_offset: Option<u64>,
    timestamp: String,
    creator_application: Code,
    creator_version: String,
    creator_host_os: Code,
    original_size: u64,
    current_size: u64,
    disk_geometry: GeometryInfo,
    disk_type: String,
    checksum: u32,
    /// The bytes in their order.
    unique_id: String,
    /// These bytes as Windows shows them.
    unique_id_guid: String,
    saved_state: u8,
    reserved: String,
}

/// Four bytes and their meaning.
#[derive(Debug, Serialize)]
pub(super) struct Code {
    bytes: String,
    name: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct GeometryInfo {
    cylinders: u16,
    heads: u8,
    sectors_per_track: u8,
    /// The product in bytes.
    size: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct HeaderInfo {
    data_offset: Option<u64>,
    table_offset: u64,
    header_version: String,
    max_table_entries: u32,
    block_size: u32,
    checksum: u32,
    parent_unique_id: String,
    parent_unique_id_guid: String,
    parent_timestamp: String,
    parent_unicode_name: String,
    parent_locators: Vec<LocatorInfo>,
}

#[derive(Debug, Serialize)]
pub(super) struct LocatorInfo {
    platform_code: Code,
    data_space: u32,
    data_length: u32,
    data_offset: u64,
    /// The text in the data, if it can be read.
    text: Option<String>,
}

impl From<&Footer> for FooterInfo {
    fn from(footer: &Footer) -> Self {
        let geometry = footer.disk_geometry;
        Self {
            features: footer.features,
            file_format_version: footer.file_format_version.to_string(),
            data_offset: offset(footer.data_offset),
            timestamp: footer.timestamp.to_string(),
            creator_application: Code::new(
                footer.creator_application.0,
                footer.creator_application.name(),
            ),
            creator_version: footer.creator_version.to_string(),
            creator_host_os: Code::new(footer.creator_host_os.0, footer.creator_host_os.name()),
            original_size: footer.original_size,
            current_size: footer.current_size,
            disk_geometry: GeometryInfo {
                cylinders: geometry.cylinders,
                heads: geometry.heads,
                sectors_per_track: geometry.sectors_per_track,
                size: geometry.size(),
            },
            disk_type: footer.disk_type.to_string(),
            checksum: footer.checksum,
            unique_id: footer.unique_id.big_endian(),
            unique_id_guid: footer.unique_id.guid_layout(),
            saved_state: footer.saved_state,
            reserved: value_of(&footer.fields(), "reserved"),
        }
    }
}

impl HeaderInfo {
    pub(super) fn new(header: &DynamicHeader, paths: &[ParentPath]) -> Self {
        let text = |n: usize| {
            paths
                .iter()
                .find(|path| path.locator == n)
                .map(|path| path.text.clone())
        };
        let locators = header.parent_locators.iter().enumerate();
        let locators = locators.filter(|(_, locator)| locator.is_used());
        Self {
            data_offset: offset(header.data_offset),
            table_offset: header.table_offset,
            header_version: header.header_version.to_string(),
            max_table_entries: header.max_table_entries,
            block_size: header.block_size,
            checksum: header.checksum,
            parent_unique_id: header.parent_unique_id.big_endian(),
            parent_unique_id_guid: header.parent_unique_id.guid_layout(),
            parent_timestamp: header.parent_timestamp.to_string(),
            parent_unicode_name: header.parent_name(),
            parent_locators: locators
                .map(|(n, locator)| LocatorInfo {
                    platform_code: Code::of_locator(locator.platform_code),
                    data_space: locator.data_space,
                    data_length: locator.data_length,
                    data_offset: locator.data_offset,
                    text: text(n),
                })
                .collect(),
        }
    }
}

impl Code {
    fn new(code: [u8; 4], name: Option<&'static str>) -> Self {
        Self {
            bytes: code.escape_ascii().to_string(),
            name,
        }
    }

    fn of_locator(code: PlatformCode) -> Self {
        Self::new(code.0, code.name())
    }
}

pub(super) fn offset(stored: u64) -> Option<u64> {
    (stored != Footer::NO_OFFSET).then_some(stored)
}

fn value_of(fields: &[Field], name: &str) -> String {
    let field = fields.iter().find(|field| field.name == name);
    field.map(|field| field.value.clone()).unwrap_or_default()
}
