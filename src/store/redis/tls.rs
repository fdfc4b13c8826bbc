//! Connections through TLS.

use std::{fmt, sync::Once};

use ::redis::{Client, ClientTlsConfig, ConnectionAddr, TlsCertificates};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{RedisStoreBuilder, RedisStoreError};

/// Installs a provider of cryptography for the process, unless it has one. Without one rustls panics.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Certificates in PEM, for servers whose authority the system does not know, or that ask clients for a certificate.
///
/// Without them a server is trusted that shows a certificate of an authority which the system trusts.
#[derive(Clone, Default)]
#[must_use]
pub struct RedisCertificates {
    root: Option<Vec<u8>>,
    client: Option<ClientTlsConfig>,
}

impl RedisCertificates {
    /// Holds no certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the only authority whose servers are trusted.
    pub fn root(self, pem: impl Into<Vec<u8>>) -> Self {
        Self {
            root: Some(pem.into()),
            ..self
        }
    }

    /// Sets the certificate that this process shows the server, and its key.
    pub fn client(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (client_cert, client_key) = (certificate.into(), key.into());
        Self {
            client: Some(ClientTlsConfig {
                client_cert,
                client_key,
            }),
            ..self
        }
    }
}

const NONE: &str = "there is no certificate in it";

impl RedisStoreBuilder {
    /// Sets the certificates for all servers that are reached through TLS.
    ///
    /// # Errors
    ///
    /// [`RedisStoreError::Certificates`] if they cannot be read.
    pub fn certificates(self, certificates: &RedisCertificates) -> Result<Self, RedisStoreError> {
        let RedisCertificates { root, client } = certificates;
        let shown = client.as_ref().map(|client| &client.client_cert);
        for pem in root.iter().chain(shown) {
            let first = CertificateDer::from_pem_slice(pem);
            first.map_err(|_| RedisStoreError::Certificates(NONE.into()))?;
        }
        let certificates = TlsCertificates {
            client_tls: client.clone(),
            root_cert: root.clone(),
        };
        let servers = self.servers.map(|server| match server.addr() {
            ConnectionAddr::TcpTls { .. } => {
                let client = Client::build_with_tls(server, certificates.clone());
                let client = client
                    .map_err(|error| RedisStoreError::Certificates(error.to_string().into()))?;
                Ok(client.get_connection_info().clone())
            }
            _ => Ok(server),
        });
        Ok(Self {
            servers: servers?,
            ..self
        })
    }
}

impl fmt::Debug for RedisCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCertificates").finish_non_exhaustive()
    }
}
