//! The body of `wharf gpu-probe` as a program of its own.

fn main() -> std::io::Result<()> {
    wharf_runtime::gpu::serve()
}
