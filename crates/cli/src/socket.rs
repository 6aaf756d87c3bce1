//! Where the daemon is asked, unless somebody says; and what it leaves there for one who finds it gone.

use std::path::PathBuf;

use wharf_runtime::Layout;

/// The service socket of this user's installation.
pub(crate) fn default_path() -> PathBuf {
    Layout::from_env().service_sock()
}

/// The folder of the shims' files: `<unit>/<run>/lock` is held while a process of the run lives.
pub(crate) fn runs() -> PathBuf {
    Layout::from_env().runs()
}
