//! The style sheet, the script and the icon, as they are served: their names contain a hash of what they hold, so that
//! browsers keep them for good.

use std::sync::LazyLock;

use crate::decision::fnv1a;

/// A file that the pages name.
#[derive(Debug)]
pub struct Asset {
    stem: &'static str,
    end: &'static str,
    pub content_type: &'static str,
    pub content: &'static str,
    name: String,
}

impl Asset {
    fn new(stem: &'static str, end: &'static str, content_type: &'static str, content: &'static str) -> Self {
        Self { stem, end, content_type, content, name: format!("{stem}.{:016x}.{end}", fnv1a(content.bytes())) }
    }

    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }

    /// A page of another release may name it with another hash, behind a proxy for several replicas.
    fn is_named(&self, name: &str) -> bool {
        let hash = name.strip_prefix(self.stem).and_then(|rest| rest.strip_suffix(self.end));
        let hash = hash.and_then(|hash| hash.strip_prefix('.')?.strip_suffix('.'));
        hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

pub static CSS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("page", "css", "text/css; charset=utf-8", include_str!("assets/page.css")));
pub static JS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("page", "js", "text/javascript; charset=utf-8", include_str!("assets/page.js")));
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// The file with this name, and whether it will never change under it.
pub fn find(name: &str) -> Option<(&'static Asset, bool)> {
    let all: [&'static Asset; 3] = [&CSS, &JS, &ICON];
    let asset = all.into_iter().find(|asset| asset.is_named(name))?;
    Some((asset, asset.name == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_name_and_kept_only_if_the_hash_is_its_own() {
        let name = CSS.path().replace("/assets/", "");
        assert!(find(&name).is_some_and(|(asset, kept)| asset.content == CSS.content && kept));
        assert!(find("page.0123456789abcdef.js").is_some_and(|(asset, kept)| asset.content == JS.content && !kept));
        for other in ["page.css", "page..css", "icon.0123456789abcdef.css", "../page.0123456789abcdef.css", ""] {
            assert!(find(other).is_none(), "{other}");
        }
    }

    #[test]
    fn style_sheet_and_script_stay_small() {
        const MOST: usize = 15_000;
        for asset in [&*CSS, &*JS, &*ICON] {
            assert!(asset.content.len() < MOST, "{}: {} bytes", asset.name, asset.content.len());
        }
        assert!(!CSS.content.contains("@import") && !CSS.content.contains("url("), "nothing is loaded from elsewhere");
        assert!(!JS.content.contains("http://") && !JS.content.contains("https://"));
        assert!(!JS.content.contains("innerHTML") && !JS.content.contains("eval("), "no text becomes markup");
    }
}
