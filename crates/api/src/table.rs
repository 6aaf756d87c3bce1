//! From one table of methods: the trait, the dispatch, the client, the schemas.

use jsonrpsee_core::traits::ToRpcParams;
use jsonrpsee_types::ErrorObjectOwned;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};
use wharf_model::{ErrorKind, Failure};

use crate::error_object;

/// What a method may do. One that declares none does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Looks at state.
    Read,
    /// Reads what services wrote.
    Logs,
    /// Starts and stops.
    Control,
    /// Places and removes programs.
    Install,
}

/// A method as the code has it, for the drift tests and the tools.
#[derive(Debug, Clone)]
pub struct MethodSchema {
    /// Its name on the wire.
    pub name: &'static str,
    /// What it may do.
    pub class: Class,
    /// JSON Schema of its params object.
    pub params: Value,
    /// JSON Schema of its result.
    pub result: Value,
}

/// Params by name.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<T: Serialize> ToRpcParams for Named<T> {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        serde_json::value::to_raw_value(&self.0).map(Some)
    }
}

/// Params by name or by position; absent ones are an empty object.
pub(crate) fn parse<T: DeserializeOwned>(method: &str, params: Option<&RawValue>) -> Result<T, ErrorObjectOwned> {
    let text = params.map_or("{}", RawValue::get);
    // The plain way first: finding the path costs, and nearly every call is well formed.
    if let Ok(params) = serde_json::from_str(text) {
        return Ok(params);
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|e| {
        let path = e.path().to_string();
        let at = if path == "." { String::new() } else { format!(" {path}:") };
        // Line and column are of the params alone: they would mislead.
        let whole = e.inner().to_string();
        let what = whole.split(" at line ").next().unwrap_or(&whole);
        error_object(
            Failure::new(ErrorKind::InvalidParams, format!("{method}:{at} {what}"))
                .hint(format!("`wharf rpc discover` has the params of {method}")),
        )
    })
}

pub(crate) fn reply<T: Serialize>(result: Result<T, Failure>) -> Result<Box<RawValue>, ErrorObjectOwned> {
    let result = result.map_err(error_object)?;
    serde_json::value::to_raw_value(&result)
        .map_err(|e| error_object(Failure::new(ErrorKind::Internal, format!("the result cannot be written: {e}"))))
}

/// The schema of what is written: a field that may be null is there all the same.
pub(crate) fn written<T: schemars::JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::default()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// A namespace: for each method its wire name, its class, its name in Rust, its params and its result.
macro_rules! methods {
    (
        $(#[$meta:meta])*
        trait $Api:ident, client $Client:ident, dispatch $dispatch:ident, schemas $schemas:ident;
        $( $(#[doc = $doc:literal])* $class:ident $name:literal $method:ident($Params:ty) -> $Reply:ty; )*
    ) => {
        $(#[$meta])*
        #[async_trait::async_trait]
        pub trait $Api: Send + Sync + 'static {
            $( $(#[doc = $doc])* async fn $method(&self, caller: &Caller, params: $Params) -> Result<$Reply, wharf_model::Failure>; )*
        }

        /// The same methods, called through a connection.
        #[async_trait::async_trait]
        pub trait $Client: jsonrpsee_core::client::ClientT {
            $( $(#[doc = $doc])* async fn $method(&self, params: $Params) -> Result<$Reply, jsonrpsee_core::client::Error>
            where
                Self: Sync,
            {
                self.request($name, $crate::table::Named(params)).await
            } )*
        }
        impl<T: jsonrpsee_core::client::ClientT> $Client for T {}

        pub(crate) async fn $dispatch<A: $Api + ?Sized>(
            api: &A,
            caller: &Caller,
            method: &str,
            params: Option<&serde_json::value::RawValue>,
        ) -> Result<Box<serde_json::value::RawValue>, jsonrpsee_types::ErrorObjectOwned> {
            match method {
                $( $name => {
                    let params: $Params = $crate::table::parse($name, params)?;
                    $crate::table::reply(api.$method(caller, params).await)
                } )*
                other => Err($crate::table::no_such_method(other, &[$($name),*])),
            }
        }

        impl dyn $Api {
            /// What a method of the namespace may do.
            pub(crate) fn class_of(method: &str) -> Option<$crate::Class> {
                match method {
                    $( $name => Some($crate::Class::$class), )*
                    _ => None,
                }
            }
        }

        /// Every method of the namespace, in the order of its document.
        pub fn $schemas() -> Vec<$crate::MethodSchema> {
            vec![ $( $crate::MethodSchema {
                name: $name,
                class: $crate::Class::$class,
                params: schemars::schema_for!($Params).to_value(),
                result: $crate::table::written::<$Reply>(),
            } ),* ]
        }
    };
}
pub(crate) use methods;

/// -32601, and the name that was perhaps meant.
pub(crate) fn no_such_method(method: &str, known: &[&str]) -> ErrorObjectOwned {
    let shown: String = method.chars().take(80).collect();
    let near = known.iter().find(|k| k.rsplit('.').next() == method.rsplit('.').next());
    let data = near.map(|near| serde_json::json!({ "hint": format!("did you mean {near}?") }));
    ErrorObjectOwned::owned(-32601, format!("Method not found: {shown}"), data)
}
