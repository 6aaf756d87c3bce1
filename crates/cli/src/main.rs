//! Wharf with the services that ship with it. A crate of your own makes the same with yours.

fn main() -> std::process::ExitCode {
    wharf::main_with(wharf_services::Catalogue::built_in())
}
