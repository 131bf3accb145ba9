//! The coordinator's own certificates: a CA made at first start, a leaf that renews itself, and their fingerprint.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use lull_shared::{
    credentials::SpkiPin,
    time::{Clock, Timestamp},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const LEAF_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Certificates begin this much in the past, so that a client whose clock is behind accepts them.
const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The certificates in `<data-dir>/tls` and what is needed to renew the leaf.
pub struct Tls {
    dir: PathBuf,
    ca: CertificateDer<'static>,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads the certificates, making those that are missing, about to end, or lack a name of this machine.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or a file in it is damaged.
    pub fn open(
        data_dir: &Path,
        extra_names: &[String],
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<Self>> {
        let dir = data_dir.join("tls");
        let ca = open_ca(&dir, clock.now())?;
        let leaf = open_leaf(&dir, &ca, &wanted_names(extra_names), clock.now())?;
        Ok(Arc::new(Self {
            dir,
            ca,
            names: extra_names.to_vec(),
            clock,
            current: RwLock::new(Arc::new(leaf)),
        }))
    }

    /// By what clients know this pool: the SHA-256 of the CA's public key.
    ///
    /// # Errors
    /// When the CA certificate cannot be parsed.
    pub fn pin(&self) -> anyhow::Result<SpkiPin> {
        pin_of(&self.ca)
    }

    /// The settings of the HTTPS listener. The certificate is looked up at each handshake.
    ///
    /// # Errors
    /// When the crypto provider lacks a protocol version.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(CurrentLeaf(Arc::clone(self))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Replaces the leaf when two thirds of its life are over or this machine has got a new name or address.
    ///
    /// # Errors
    /// When the new leaf cannot be written.
    pub fn renew_if_needed(&self) -> anyhow::Result<()> {
        let wanted = wanted_names(&self.names);
        let leaf = open_leaf(&self.dir, &self.ca, &wanted, self.clock.now())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(leaf);
        Ok(())
    }

    /// The chain that the next client will see, leaf first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current().cert.clone()
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps the leaf current for as long as the server runs.
pub async fn keep_renewed(tls: Arc<Tls>, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(CHECK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let tls = Arc::clone(&tls);
        let renewed = tokio::task::spawn_blocking(move || tls.renew_if_needed()).await;
        if let Ok(Err(error)) = renewed {
            tracing::warn!(error = format!("{error:#}"), "certificate not renewed");
        }
    }
}

struct CurrentLeaf(Arc<Tls>);

impl std::fmt::Debug for CurrentLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CurrentLeaf")
    }
}

impl ResolvesServerCert for CurrentLeaf {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
///
/// # Errors
/// When the certificate cannot be parsed.
pub fn pin_of(certificate: &CertificateDer<'_>) -> anyhow::Result<SpkiPin> {
    let (_, parsed) =
        parse_x509_certificate(certificate).context("could not read the CA certificate")?;
    Ok(SpkiPin(Sha256::digest(parsed.public_key().raw).into()))
}

/// Addresses at which other machines may reach this one, best first: IPv4, the host name, IPv6. Empty when
/// there is no network.
#[must_use]
pub fn outward_hosts() -> Vec<String> {
    let addresses = interface_addresses();
    let (v4, v6): (Vec<_>, Vec<_>) =
        addresses.into_iter().filter(|address| !address.is_loopback()).partition(IpAddr::is_ipv4);
    let named = if v4.is_empty() && v6.is_empty() { None } else { host_name() };
    let v6 = v6.into_iter().map(|address| format!("[{address}]"));
    v4.into_iter().map(|address| address.to_string()).chain(named).chain(v6).collect()
}

/// This machine's name in the network.
#[must_use]
pub fn host_name() -> Option<String> {
    hostname::get().ok()?.into_string().ok().filter(|name| !name.is_empty())
}

fn interface_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            // A link-local address means nothing without the interface it belongs to.
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Every name and address this machine may be called by.
fn wanted_names(extra: &[String]) -> BTreeSet<String> {
    let fixed = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let addresses = fixed.into_iter().chain(interface_addresses());
    addresses
        .map(|address| address.to_string())
        .chain(["localhost".to_owned()])
        .chain(host_name())
        .chain(extra.iter().cloned())
        .map(|name| name.to_ascii_lowercase())
        .collect()
}

fn open_ca(dir: &Path, now: Timestamp) -> anyhow::Result<CertificateDer<'static>> {
    let (cert_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    if !cert_path.exists() {
        // A key without a certificate is a first start that was cut off: nobody has seen it yet.
        fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
        let key = KeyPair::generate()?;
        let mut params = params("Lull pool CA", CA_LIFE, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        write(&key_path, &key.serialize_pem(), 0o600)?;
        write(&cert_path, &certificate.pem(), 0o644)?;
    }
    CertificateDer::from_pem_file(&cert_path)
        .with_context(|| format!("could not read the certificate in {}", cert_path.display()))
}

/// The leaf on disk if it is still good, else a new one.
fn open_leaf(
    dir: &Path,
    ca: &CertificateDer<'static>,
    wanted: &BTreeSet<String>,
    now: Timestamp,
) -> anyhow::Result<CertifiedKey> {
    let (cert_path, key_path) = (dir.join("leaf.pem"), dir.join("leaf.key"));
    let stored = CertificateDer::from_pem_file(&cert_path).ok();
    let key = PrivateKeyDer::from_pem_file(&key_path).ok();
    if let (Some(stored), Some(key)) = (stored, key)
        && is_good(&stored, ca, wanted, now)
        && let Ok(leaf) = certified(stored, ca, key)
    {
        return Ok(leaf);
    }
    let ca_key_path = dir.join("ca.key");
    let ca_key = fs::read_to_string(&ca_key_path)
        .with_context(|| format!("could not read {}", ca_key_path.display()))?;
    let issuer = Issuer::from_ca_cert_der(ca, KeyPair::from_pem(&ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = params("Lull coordinator", LEAF_LIFE, now)?;
    params.subject_alt_names =
        CertificateParams::new(wanted.iter().cloned().collect::<Vec<_>>())?.subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&cert_path, &certificate.pem(), 0o644)?;
    tracing::info!(names = wanted.len(), "certificate issued");
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    certified(certificate.der().clone(), ca, key)
}

fn certified(
    leaf: CertificateDer<'static>,
    ca: &CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<CertifiedKey> {
    // The CA goes out too: a PC that joins knows only its fingerprint and must see it to compare.
    let chain = vec![leaf, ca.clone()];
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

/// Whether the leaf is of this CA, has a third of its life left, and carries every wanted name.
fn is_good(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    wanted: &BTreeSet<String>,
    now: Timestamp,
) -> bool {
    let (Ok((_, leaf)), Ok((_, ca))) = (parse_x509_certificate(leaf), parse_x509_certificate(ca))
    else {
        return false;
    };
    let now_secs = now.as_millis() / 1000;
    let begins = leaf.validity().not_before.timestamp();
    let ends = leaf.validity().not_after.timestamp();
    let renew_at = begins + (ends - begins) / 3 * 2;
    let names: BTreeSet<String> = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(name_text).collect())
        .unwrap_or_default();
    leaf.verify_signature(Some(ca.public_key())).is_ok()
        && (begins..renew_at).contains(&now_secs)
        && wanted.is_subset(&names)
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(name.to_ascii_lowercase());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
}

fn params(name: &str, life: Duration, now: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now - BACKDATED)?;
    params.not_after = date(now + life)?;
    Ok(params)
}

fn date(at: Timestamp) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.as_millis() / 1000)
        .context("the computer's clock shows a time beyond any calendar")
}

/// Writes a file whole or not at all, readable by nobody else unless `mode` says so.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    write_atomically(path, text.as_bytes(), mode)
        .with_context(|| format!("could not write {}", path.display()))
}

fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;

    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = mode;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name is kept by the folder, which only Unix can be told to write out.
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct FixedClock(Timestamp);

    impl Clock for FixedClock {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn open(dir: &Path, names: &[&str], now: Timestamp) -> Arc<Tls> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Tls::open(dir, &names, Arc::new(FixedClock(now))).unwrap()
    }

    #[test]
    fn a_second_start_presents_the_same_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[], START);
        let second = open(dir.path(), &[], START + DAY);
        assert_eq!(first.chain(), second.chain());
        assert_eq!(first.pin().unwrap(), second.pin().unwrap());
        assert_eq!(first.chain().len(), 2, "the CA comes with the leaf");
        assert_eq!(pin_of(&first.chain()[1]).unwrap(), first.pin().unwrap());
    }

    #[test]
    fn the_leaf_is_renewed_at_two_thirds_of_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[], START);
        assert_eq!(open(dir.path(), &[], START + 59 * DAY).chain(), first.chain());
        let later = open(dir.path(), &[], START + 61 * DAY);
        assert_ne!(later.chain()[0], first.chain()[0]);
        assert_eq!(later.chain()[1], first.chain()[1], "the CA stays");
    }

    #[test]
    fn a_new_name_gets_into_the_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &["Pool.example", "192.0.2.7"], START);
        let same = open(dir.path(), &["pool.example"], START);
        assert_eq!(first.chain(), same.chain(), "one name less is no reason");
        let more = open(dir.path(), &["other.example"], START);
        assert_ne!(first.chain()[0], more.chain()[0]);
        let (_, leaf) = parse_x509_certificate(&first.chain()[0])
            .map(|(r, c)| (r.len(), c.validity().not_after.timestamp()))
            .unwrap();
        assert_eq!(leaf, (START + LEAF_LIFE).as_millis() / 1000);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_the_keys() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &[], START);
        for (name, mode) in [("ca.key", 0o600), ("leaf.key", 0o600), ("ca.pem", 0o644)] {
            let found = fs::metadata(dir.path().join("tls").join(name)).unwrap().permissions();
            assert_eq!(found.mode() & 0o777, mode, "{name}");
        }
    }
}
