//! The device and its backends, as ggml sees them.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;
use xc2_kernels::matmul::MatmulKernels;

use super::abi::{
    API_VERSION, Backend, BackendInterface, Device, DeviceInterface, Registry, RegistryInterface,
};
use super::custom_ops::CustomOps;
use super::{MatmulBackend, SELECTED};

const NAME: &CStr = c"XC2";
const DESCRIPTION: &CStr = c"the CPU, with xc2-edge's matrix kernels";
static mut GUID: sys::ggml_guid = *b"xc2-edge-kernels";

/// What lives as long as the process: ggml keeps pointers to it.
struct Statics {
    registry: Registry,
    device: Device,
    /// The CPU's.
    cpu: sys::ggml_backend_dev_t,
    kernels: MatmulKernels,
}

// SAFETY: it is not changed once it is registered; ggml reads it from several threads.
unsafe impl Send for Statics {}
// SAFETY: as above.
unsafe impl Sync for Statics {}

static STATICS: OnceLock<&'static Statics> = OnceLock::new();

fn statics() -> &'static Statics {
    STATICS.get().expect("ggml calls what was registered")
}

/// Tells ggml of the device.
pub fn register(kernels: MatmulKernels) {
    STATICS.get_or_init(|| {
        // SAFETY: the CPU's registry and its device are there in every build.
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
    // SAFETY: the registry and all that it points to live forever and are what this version of ggml
    // declares (`abi::check`).
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

/// llama.cpp asks each registry for these by name.
unsafe extern "C" fn proc_address(_: *mut Registry, name: *const c_char) -> *mut c_void {
    // SAFETY: a string that ends in zero.
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

/// None of its own.
unsafe extern "C" fn device_memory(_: *mut Device, free: *mut usize, total: *mut usize) {
    // SAFETY: two numbers that may be written.
    unsafe { (*free, *total) = (0, 0) }
}

unsafe extern "C" fn device_type(_: *mut Device) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_ACCEL
}

/// The CPU's, but for name, type and memory.
unsafe extern "C" fn device_props(_: *mut Device, props: *mut sys::ggml_backend_dev_props) {
    // SAFETY: the structure may be written; the CPU device exists.
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
    // SAFETY: handed on to the CPU.
    unsafe {
        sys::ggml_backend_dev_buffer_from_host_ptr(statics().cpu, memory, size, max_tensor_size)
    }
}

unsafe extern "C" fn supports_op(_: *mut Device, node: *const sys::ggml_tensor) -> bool {
    // SAFETY: handed on to the CPU.
    unsafe { sys::ggml_backend_dev_supports_op(statics().cpu, node) }
}

unsafe extern "C" fn supports_buft(_: *mut Device, ty: sys::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: handed on to the CPU.
    unsafe { sys::ggml_backend_dev_supports_buft(statics().cpu, ty) }
}

/// What a backend of ours is: one for each context.
struct State {
    /// ggml's, which computes all graphs.
    cpu: sys::ggml_backend_t,
    /// What becomes of products; `None` for nothing.
    jobs: Option<CustomOps>,
}

unsafe extern "C" fn init_backend(device: *mut Device, _: *const c_char) -> *mut Backend {
    // SAFETY: it takes nothing.
    let cpu = unsafe { sys::ggml_backend_cpu_init() };
    if cpu.is_null() {
        return null_mut();
    }
    let jobs = (SELECTED.get() == MatmulBackend::Xc2).then(|| CustomOps::new(statics().kernels));
    let state = Box::new(State { cpu, jobs });
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
/// A backend of ours, used by one thread at a time.
unsafe fn state<'a>(backend: *mut Backend) -> &'a mut State {
    // SAFETY: `init_backend` put it there, and ggml computes with a backend on one thread at a time.
    unsafe { &mut *(*backend).context.cast::<State>() }
}

unsafe extern "C" fn backend_name(_: *mut Backend) -> *const c_char {
    NAME.as_ptr()
}

unsafe extern "C" fn free_backend(backend: *mut Backend) {
    // SAFETY: both boxes are `init_backend`'s, and ggml frees a backend once.
    unsafe {
        let backend = Box::from_raw(backend);
        let state = Box::from_raw(backend.context.cast::<State>());
        sys::ggml_backend_free(state.cpu);
    }
}

unsafe extern "C" fn set_n_threads(backend: *mut Backend, n: c_int) {
    // SAFETY: a backend of ours.
    unsafe { sys::ggml_backend_cpu_set_n_threads(state(backend).cpu, n) }
}

unsafe extern "C" fn set_abort_callback(
    backend: *mut Backend,
    callback: sys::ggml_abort_callback,
    data: *mut c_void,
) {
    // SAFETY: a backend of ours; callback and data are handed on.
    unsafe { sys::ggml_backend_cpu_set_abort_callback(state(backend).cpu, callback, data) }
}

unsafe extern "C" fn graph_compute(
    backend: *mut Backend,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: a backend of ours. The nodes are those of a graph whose memory is allocated; what is put in
    // their place refers to `jobs`, which stays as it is until they are put back.
    unsafe {
        let State { cpu, jobs } = state(backend);
        let Some(jobs) = jobs else {
            return sys::ggml_backend_graph_compute(*cpu, graph);
        };
        jobs.replace(graph);
        let status = sys::ggml_backend_graph_compute(*cpu, graph);
        jobs.restore();
        status
    }
}
