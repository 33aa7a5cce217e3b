//! Which cloud an operator means, and with which key.

use crate::input::dir_or_environment;
use crate::output::Failure;
use crate::roles::CLOUD_DIR;
use crate::usage::host_port;
use littoral_node::config::{CloudConfig, Config, Network, TransportName};
use littoral_node::deploy::{OPERATOR_KEY_FILE, read_address};
use littoral_node::host::keys;
use littoral_node::operator::Operator;
use littoral_node::transport::Address;
use std::path::PathBuf;

#[derive(clap::Args, Debug, Clone)]
pub struct Reach {
    /// The cloud, as key@host:port; by default the one of --dir.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub cloud: Option<Address>,
    /// The operator's key file; by default operator.key in --dir.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// State folder of a cloud on this machine.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// HTTP proxy to dial through.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub proxy: Option<String>,
}

impl Reach {
    /// The flags that reach the same cloud, with a blank before each.
    pub fn words(&self) -> String {
        let mut words = String::new();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        for (flag, value) in [
            ("--cloud", self.cloud.as_ref().map(Address::to_string)),
            ("--key", path(&self.key)),
            ("--dir", path(&self.dir)),
            ("--proxy", self.proxy.clone()),
        ] {
            if let Some(value) = value {
                words.push_str(&format!(" {flag} {value}"));
            }
        }
        words
    }

    pub async fn dial(&self) -> Result<Operator, Failure> {
        let dir = dir_or_environment(self.dir.clone()).unwrap_or_else(|| CLOUD_DIR.into());
        let address = match &self.cloud {
            Some(address) => address.clone(),
            None => read_address(&dir)?.ok_or_else(|| {
                let expected = "the folder of a cloud that has run";
                Failure::new("the cloud was not found", dir.display().to_string(), expected, "no file `address` in it")
                    .hint("give --dir of a cloud on this machine, or --cloud key@host:port and --key FILE")
            })?,
        };
        let key_path = self.key.clone().unwrap_or_else(|| dir.join(OPERATOR_KEY_FILE));
        if !key_path.exists() {
            let place = key_path.display().to_string();
            return Err(Failure::new("no operator's key", place, "a key file", "none")
                .hint("`littoral fleet operator new FILE` makes one; an administrator lets it in"));
        }
        let key = keys::load(&key_path)?;
        let mut network = match dir.join(CloudConfig::FILE_NAME).exists() {
            true => CloudConfig::load(None, Some(&dir))?.0.network,
            false => Network::default(),
        };
        if let Some(proxy) = &self.proxy {
            (network.proxy, network.transport) = (proxy.clone(), TransportName::Tcp);
        }
        Ok(Operator::dial(&key, &address, &network).await?)
    }
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|_| "key@host:port, as a cloud says it at its start".into())
}
