//! The keys of a connection of type `http`.

use wharf_connectors::http;

use super::url;
use crate::config::document::Section;

pub(super) fn read(section: &mut Section<'_>) -> Option<http::Config> {
    section.required("url", "the origin, such as \"https://api.example.com/v1\"", url).map(http::Config::new)
}
