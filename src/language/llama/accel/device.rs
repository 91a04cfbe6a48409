//! The ggml device and its backends.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr::null_mut,
    sync::OnceLock,
};

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::MatmulKernels;

use super::{
    MatmulBackend, SELECTED,
    abi::{
        API_VERSION, Backend, BackendInterface, Device, DeviceInterface, Registry,
        RegistryInterface,
    },
    custom_ops::CustomOps,
};

const NAME: &CStr = c"XC2";
const DESCRIPTION: &CStr = c"the CPU, with xc2-edge's matrix kernels";
static mut GUID: sys::ggml_guid = *b"xc2-edge-kernels";

/// Objects that live as long as the process, because ggml keeps pointers to them.
struct Statics {
    registry: Registry,
    device: Device,
    /// ggml's CPU device.
    cpu: sys::ggml_backend_dev_t,
    kernels: MatmulKernels,
}

// SAFETY: it is not changed after it is registered; ggml reads it from several threads.
unsafe impl Send for Statics {}
// SAFETY: as above.
unsafe impl Sync for Statics {}

static STATICS: OnceLock<&'static Statics> = OnceLock::new();

fn statics() -> &'static Statics {
    STATICS.get().expect("the device is registered")
}

/// Registers the device with ggml.
pub fn register(kernels: MatmulKernels) {
    STATICS.get_or_init(|| {
        // SAFETY: the CPU's registry and its device exist in every build.
        let cpu = unsafe { sys::ggml_backend_reg_dev_get(sys::ggml_backend_cpu_reg(), 0) };
        let statics = Box::leak(Box::new(Statics {
            registry: Registry {
                api_version: API_VERSION,
                iface: RegistryInterface {
                    get_name: Some(registry_name),
                    get_device_count: Some(device_count),
                    get_device: Some(device),
                    get_proc_address: Some(proc_address),
                },
                context: null_mut(),
            },
            device: Device {
                iface: DeviceInterface {
                    get_name: Some(device_name),
                    get_description: Some(device_description),
                    get_memory: Some(device_memory),
                    get_type: Some(device_type),
                    get_props: Some(device_props),
                    init_backend: Some(init_backend),
                    get_buffer_type: Some(buffer_type),
                    buffer_from_host_ptr: Some(buffer_from_host_ptr),
                    supports_op: Some(supports_op),
                    supports_buft: Some(supports_buft),
                    ..DeviceInterface::default()
                },
                reg: null_mut(),
                context: null_mut(),
            },
            cpu,
            kernels,
        }));
        statics.device.reg = &raw mut statics.registry;
        statics
    });
    let registry = &raw const statics().registry;
    // SAFETY: the registry and everything that it points to live forever and match this version of ggml (`abi::check`).
    unsafe { sys::ggml_backend_register(registry.cast_mut().cast()) }
}

unsafe extern "C" fn registry_name(_: *mut Registry) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn device_count(_: *mut Registry) -> usize {
    1
}

unsafe extern "C" fn device(_: *mut Registry, _: usize) -> *mut Device {
    (&raw const statics().device).cast_mut()
}

/// Functions that llama.cpp looks up by name in each registry.
unsafe extern "C" fn proc_address(_: *mut Registry, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml passes a NUL-terminated string.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"ggml_backend_set_n_threads" => set_n_threads as *mut c_void,
        b"ggml_backend_set_abort_callback" => set_abort_callback as *mut c_void,
        _ => null_mut(),
    }
}

unsafe extern "C" fn device_name(_: *mut Device) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn device_description(_: *mut Device) -> *const c_char {
    DESCRIPTION.as_ptr()
}

/// The device has no memory of its own.
unsafe extern "C" fn device_memory(_: *mut Device, free: *mut usize, total: *mut usize) {
    // SAFETY: both pointers can be written.
    unsafe { (*free, *total) = (0, 0) }
}

unsafe extern "C" fn device_type(_: *mut Device) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_ACCEL
}

/// The CPU's properties, except name, type and memory.
unsafe extern "C" fn device_props(_: *mut Device, props: *mut sys::ggml_backend_dev_props) {
    // SAFETY: the structure can be written; the CPU device exists.
    unsafe {
        sys::ggml_backend_dev_get_props(statics().cpu, props);
        (*props).name = NAME.as_ptr();
        (*props).description = DESCRIPTION.as_ptr();
        (*props).type_ = sys::GGML_BACKEND_DEVICE_TYPE_ACCEL;
        ((*props).memory_free, (*props).memory_total) = (0, 0);
    }
}

unsafe extern "C" fn buffer_type(_: *mut Device) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: a static object.
    unsafe { sys::ggml_backend_cpu_buffer_type() }
}

unsafe extern "C" fn buffer_from_host_ptr(
    _: *mut Device,
    memory: *mut c_void,
    size: usize,
    max_tensor_size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: the arguments are passed to the CPU's function unchanged.
    unsafe {
        sys::ggml_backend_dev_buffer_from_host_ptr(statics().cpu, memory, size, max_tensor_size)
    }
}

unsafe extern "C" fn supports_op(_: *mut Device, node: *const sys::ggml_tensor) -> bool {
    // SAFETY: the arguments are passed to the CPU's function unchanged.
    unsafe { sys::ggml_backend_dev_supports_op(statics().cpu, node) }
}

unsafe extern "C" fn supports_buft(_: *mut Device, ty: sys::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: the arguments are passed to the CPU's function unchanged.
    unsafe { sys::ggml_backend_dev_supports_buft(statics().cpu, ty) }
}

/// The state of a backend; each context has one.
struct State {
    /// ggml's CPU backend, which computes all graphs.
    cpu: sys::ggml_backend_t,
    /// Our operations; `None` if the context uses ggml's kernels only.
    custom_ops: Option<CustomOps>,
}

unsafe extern "C" fn init_backend(device: *mut Device, _: *const c_char) -> *mut Backend {
    // SAFETY: it has no preconditions.
    let cpu = unsafe { sys::ggml_backend_cpu_init() };
    if cpu.is_null() {
        return null_mut();
    }
    let custom_ops =
        (SELECTED.get() == MatmulBackend::Xc2).then(|| CustomOps::new(statics().kernels));
    let state = Box::new(State { cpu, custom_ops });
    Box::into_raw(Box::new(Backend {
        guid: &raw mut GUID,
        iface: BackendInterface {
            get_name: Some(backend_name),
            free: Some(free_backend),
            graph_compute: Some(graph_compute),
            ..BackendInterface::default()
        },
        device,
        context: Box::into_raw(state).cast(),
    }))
}

/// # Safety
/// The backend is from `init_backend` and used by one thread at a time.
unsafe fn state<'a>(backend: *mut Backend) -> &'a mut State {
    // SAFETY: `init_backend` stored it there, and ggml uses a backend on one thread at a time.
    unsafe { &mut *(*backend).context.cast::<State>() }
}

unsafe extern "C" fn backend_name(_: *mut Backend) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn free_backend(backend: *mut Backend) {
    // SAFETY: both boxes are from `init_backend`, and ggml frees a backend once.
    unsafe {
        let backend = Box::from_raw(backend);
        let state = Box::from_raw(backend.context.cast::<State>());
        sys::ggml_backend_free(state.cpu);
    }
}

unsafe extern "C" fn set_n_threads(backend: *mut Backend, n: c_int) {
    // SAFETY: the backend is from `init_backend`.
    unsafe { sys::ggml_backend_cpu_set_n_threads(state(backend).cpu, n) }
}

unsafe extern "C" fn set_abort_callback(
    backend: *mut Backend,
    callback: sys::ggml_abort_callback,
    data: *mut c_void,
) {
    // SAFETY: the backend is from `init_backend`; callback and data are passed on unchanged.
    unsafe { sys::ggml_backend_cpu_set_abort_callback(state(backend).cpu, callback, data) }
}

unsafe extern "C" fn graph_compute(
    backend: *mut Backend,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: the backend is from `init_backend`. The graph's memory is allocated; the custom nodes refer to
    // `custom_ops`, which does not change before the nodes are restored.
    unsafe {
        let State { cpu, custom_ops } = state(backend);
        let Some(custom_ops) = custom_ops else {
            return sys::ggml_backend_graph_compute(*cpu, graph);
        };
        custom_ops.replace(graph);
        let status = sys::ggml_backend_graph_compute(*cpu, graph);
        custom_ops.restore();
        status
    }
}
