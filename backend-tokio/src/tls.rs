//! TLS 1.3 with rustls: who each side is, whom it trusts, and what goes wrong, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farref_host::Error;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore, ServerConfig,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::driver::hang_up;

/// What the protocol is called in TLS (ALPN). Who offers other protocols only meant somebody else.
const PROTOCOL: &[u8] = b"farref/1";

/// How a server is reached by TLS: for [`Server::listen_tls`](crate::Server::listen_tls).
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl TlsServer {
    /// A server of this identity. With `clients` only those get in who show a certificate from one of these authorities.
    ///
    /// # Errors
    /// [`TlsError::Identity`] if the certificate and its key cannot be used.
    pub fn new(identity: &Identity, clients: Option<&Authorities>) -> Result<Self, TlsError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(unusable)?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities.0.clone(), provider())
                    .build()
                    .map_err(|error| TlsError::NoAuthorities(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = identity.parts();
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Resuming a handshake is of no use to long sessions, and what it needs is memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Encrypts a connection that came, and tells the certificate that its peer has shown.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(server::TlsStream<TcpStream>, Option<Certificate>), Error> {
        match self.0.accept(stream).into_fallible().await {
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = chain.and_then(<[_]>::first).map(|certificate| Certificate(certificate.to_vec()));
                Ok((stream, certificate))
            }
            Err((error, stream)) => {
                hang_up(stream).await;
                Err(fault(&error).unwrap_or_else(|| error.into()))
            }
        }
    }
}

/// How servers are reached by TLS: for [`connect_tls`](crate::connect_tls).
#[derive(Clone)]
pub struct TlsClient(TlsConnector);

impl TlsClient {
    /// A client that trusts servers with a certificate from these authorities. It shows its own identity, if it has one, to
    /// servers that ask for it.
    ///
    /// # Errors
    /// [`TlsError::Identity`] if the certificate and its key cannot be used.
    pub fn new(servers: &Authorities, identity: Option<&Identity>) -> Result<Self, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(servers.0.clone(), provider())
            .build()
            .map_err(|error| TlsError::NoAuthorities(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_webpki_verifier(verifier);
        let mut config = match identity.map(Identity::parts) {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(unusable)?,
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn connect(
        &self,
        name: ServerName<'static>,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, Error> {
        self.0.connect(name, stream).await.map_err(|error| fault(&error).unwrap_or_else(|| error.into()))
    }
}

/// Who one is: a certificate, with those between it and its authority, and its private key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From two PEM files, the second of which nobody else should be able to read.
    ///
    /// # Errors
    /// [`TlsError::File`] if one cannot be read or holds something else.
    pub fn from_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let chain = certificates(chain.as_ref())?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| in_file(key.as_ref(), &error, "private key"))?;
        Ok(Self { chain, key })
    }

    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }
}

/// Authorities whose certificates are trusted.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Those whose certificates are in a PEM file.
    ///
    /// # Errors
    /// [`TlsError::File`] if it cannot be read or holds something else.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TlsError> {
        let path = path.as_ref();
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| TlsError::File { path: path.into(), why: error.to_string() })?;
        }
        Ok(Self(Arc::new(roots)))
    }

    /// Those that the system trusts, for servers.
    ///
    /// # Errors
    /// [`TlsError::NoAuthorities`] if there are none.
    pub fn of_system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(found.certs).0 == 0 {
            let why = found.errors.first().map_or_else(|| "none are installed".into(), ToString::to_string);
            return Err(TlsError::NoAuthorities(why));
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// The certificate of a client, for a [`Validator`](crate::Validator) to judge.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Vec<u8>);

impl Certificate {
    /// As it was shown (X.509, DER).
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// The DNS names that it is for (subjectAltName), by which its authority vouches for its owner.
    pub fn dns_names(&self) -> Vec<String> {
        let der = CertificateDer::from(&*self.0);
        webpki::EndEntityCert::try_from(&der)
            .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

/// Why there can be no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or does not hold what it was named for.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There are no authorities to trust.
    NoAuthorities(String),
    /// A certificate and its key do not belong together, or are of a kind that is not supported.
    Identity(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, why } => write!(out, "{}: {why}", path.display()),
            Self::NoAuthorities(why) => write!(out, "there are no authorities to trust: {why}"),
            Self::Identity(why) => write!(out, "the certificate and its key cannot be used: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The name that a server's certificate has to be for.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| Error::Io(io::ErrorKind::InvalidInput, format!("nothing can have the name {name:?}")))
}

/// What an error of TLS says about the peer; None if it is no error of TLS.
pub(crate) fn fault(error: &io::Error) -> Option<Error> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage as Invalid, NoCertificatesPresented};

    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let denied = |text: String| Error::Io(io::ErrorKind::PermissionDenied, text);
    Some(match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            denied("the peer's certificate comes from no authority that is trusted here".into())
        }
        InvalidCertificate(fault) => denied(format!("the peer's certificate is not accepted: {fault}")),
        NoCertificatesPresented => denied("the peer shows no certificate".into()),
        AlertReceived(AlertDescription::CertificateRequired) => denied("the peer wants a client certificate".into()),
        AlertReceived(
            alert @ (AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate),
        ) => denied(format!("the peer does not accept our certificate: {alert:?}")),
        AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Error::Io(io::ErrorKind::InvalidData, "the peer speaks TLS, but not farref".into())
        }
        Invalid(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            Error::Io(io::ErrorKind::InvalidData, "the peer does not speak TLS".into())
        }
        other => Error::Io(io::ErrorKind::InvalidData, format!("no TLS with the peer: {other}")),
    })
}

/// Chosen here, not by whoever else in the process installs one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::Identity(error.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(in_file(path, &pem::Error::NoItemsFound, "certificate")),
        Ok(all) => Ok(all),
        Err(error) => Err(in_file(path, &error, "certificate")),
    }
}

fn in_file(path: &Path, error: &pem::Error, wanted: &str) -> TlsError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("no {wanted} is in there"),
        error => format!("it is no PEM file: {error}"),
    };
    TlsError::File { path: path.into(), why }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TlsServer")
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TlsClient")
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Identity")
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authorities({})", self.0.len())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Certificate").field(&self.dns_names()).finish()
    }
}
