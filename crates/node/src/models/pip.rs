//! What pip's configuration files say about indexes: `index-url` and `extra-index-url` of the section `[global]`, or of
//! `[download]` or `[install]` where they differ. Files are read in pip's order; a later one wins.

/// Of one file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PipConfig {
    pub index: Option<String>,
    pub extra: Vec<String>,
}

/// Of the text of a `pip.conf`: an INI file whose values may go on in indented lines.
pub fn pip_config(text: &str) -> PipConfig {
    let mut found = PipConfig::default();
    let (mut section, mut key) = (String::new(), String::new());
    for line in text.lines() {
        let value = line.trim();
        if value.is_empty() || value.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = value.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            (section, key) = (name.trim().to_ascii_lowercase(), String::new());
            continue;
        }
        let value = match line.split_once(['=', ':']).filter(|_| !line.starts_with([' ', '\t'])) {
            Some((name, value)) => {
                key = name.trim().to_ascii_lowercase().replace('_', "-");
                value.trim()
            }
            None => value,
        };
        if !matches!(section.as_str(), "global" | "download" | "install") {
            continue;
        }
        let mut urls = value.split_whitespace().map(str::to_owned);
        match key.as_str() {
            "index-url" => found.index = urls.next_back().or(found.index),
            "extra-index-url" => found.extra.extend(urls),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_a_file() {
        let text = "# ours\n[global]\ntimeout = 60\nindex-url = https://a:b@one.example/simple\nextra_index_url =\n    \
                    https://two.example/simple\n\n    https://three.example/simple\n[freeze]\nindex-url = https://four.example\n";
        let found = pip_config(text);
        assert_eq!(found.index.as_deref(), Some("https://a:b@one.example/simple"));
        assert_eq!(found.extra, ["https://two.example/simple", "https://three.example/simple"]);
        assert_eq!(pip_config("index-url = x\n[global]\n  y\n[global"), PipConfig::default());
    }
}
