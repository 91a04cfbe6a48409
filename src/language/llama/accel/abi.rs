//! The structures of `ggml-backend-impl.h` and `ggml-impl.h` of the pinned llama.cpp.
//!
//! The bindings omit them, because they are not a stable interface. They are declared only here, and [`check`] compares
//! them with the linked library before any of them is used.

use std::ffi::{c_char, c_int, c_void};

use llama_cpp_sys_2 as sys;

/// `GGML_BACKEND_API_VERSION` of the pinned llama.cpp.
pub const API_VERSION: c_int = 3;

/// A function pointer of any type that is not used here.
pub type Unused = Option<unsafe extern "C" fn()>;

/// `struct ggml_backend_i`
#[repr(C)]
#[derive(Default)]
pub struct BackendInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Backend) -> *const c_char>,
    pub free: Option<unsafe extern "C" fn(*mut Backend)>,
    pub set_tensor_async: Unused,
    pub get_tensor_async: Unused,
    pub set_tensor_2d_async: Unused,
    pub get_tensor_2d_async: Unused,
    pub cpy_tensor_async: Unused,
    pub synchronize: Unused,
    pub graph_plan_create: Unused,
    pub graph_plan_free: Unused,
    pub graph_plan_update: Unused,
    pub graph_plan_compute: Unused,
    pub graph_compute:
        Option<unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status>,
    pub event_record: Unused,
    pub event_wait: Unused,
    pub graph_optimize: Unused,
}

/// `struct ggml_backend`
#[repr(C)]
pub struct Backend {
    pub guid: sys::ggml_guid_t,
    pub iface: BackendInterface,
    pub device: *mut Device,
    pub context: *mut c_void,
}

/// `struct ggml_backend_device_i`
#[repr(C)]
#[derive(Default)]
pub struct DeviceInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Device) -> *const c_char>,
    pub get_description: Option<unsafe extern "C" fn(*mut Device) -> *const c_char>,
    pub get_memory: Option<unsafe extern "C" fn(*mut Device, *mut usize, *mut usize)>,
    pub get_type: Option<unsafe extern "C" fn(*mut Device) -> sys::ggml_backend_dev_type>,
    pub get_props: Option<unsafe extern "C" fn(*mut Device, *mut sys::ggml_backend_dev_props)>,
    pub init_backend: Option<unsafe extern "C" fn(*mut Device, *const c_char) -> *mut Backend>,
    pub get_buffer_type:
        Option<unsafe extern "C" fn(*mut Device) -> sys::ggml_backend_buffer_type_t>,
    pub get_host_buffer_type: Unused,
    pub buffer_from_host_ptr: Option<
        unsafe extern "C" fn(*mut Device, *mut c_void, usize, usize) -> sys::ggml_backend_buffer_t,
    >,
    pub supports_op: Option<unsafe extern "C" fn(*mut Device, *const sys::ggml_tensor) -> bool>,
    pub supports_buft:
        Option<unsafe extern "C" fn(*mut Device, sys::ggml_backend_buffer_type_t) -> bool>,
    pub offload_op: Unused,
    pub event_new: Unused,
    pub event_free: Unused,
    pub event_synchronize: Unused,
}

/// `struct ggml_backend_device`
#[repr(C)]
pub struct Device {
    pub iface: DeviceInterface,
    pub reg: *mut Registry,
    pub context: *mut c_void,
}

/// `struct ggml_backend_reg_i`
#[repr(C)]
pub struct RegistryInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Registry) -> *const c_char>,
    pub get_device_count: Option<unsafe extern "C" fn(*mut Registry) -> usize>,
    pub get_device: Option<unsafe extern "C" fn(*mut Registry, usize) -> *mut Device>,
    pub get_proc_address: Option<unsafe extern "C" fn(*mut Registry, *const c_char) -> *mut c_void>,
}

/// `struct ggml_backend_reg`
#[repr(C)]
pub struct Registry {
    pub api_version: c_int,
    pub iface: RegistryInterface,
    pub context: *mut c_void,
}

/// `struct ggml_custom_op_params`, the parameters of a node of operation `GGML_OP_CUSTOM`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CustomParams {
    pub function: CustomFunction,
    pub n_tasks: c_int,
    pub user_data: *mut c_void,
}

/// Called by each of `nth` threads with its index: node, `ith`, `nth`, user data.
pub type CustomFunction = unsafe extern "C" fn(*mut sys::ggml_tensor, c_int, c_int, *mut c_void);

/// One task per compute thread: `GGML_N_TASKS_MAX`.
pub const ALL_THREADS: c_int = -1;

impl CustomParams {
    /// The parameters as stored in a node.
    pub fn to_words(self) -> [i32; 16] {
        let mut words = [0; 16];
        // SAFETY: the structure is smaller than the array, and any bytes are valid in the array.
        unsafe { words.as_mut_ptr().cast::<Self>().write_unaligned(self) };
        words
    }
}

/// Checks that the linked library has the structures above, as far as its CPU device and a custom node show.
///
/// # Errors
/// What differs.
pub fn check() -> Result<(), String> {
    // SAFETY: the CPU's registry, its device and a backend of it exist in every build of this crate. The version is
    // read first; the other reads stay within structures of that version, or, if these changed without a new version,
    // within memory of the same static objects.
    unsafe {
        let registry = sys::ggml_backend_cpu_reg();
        let version = (*registry.cast::<Registry>()).api_version;
        if version != API_VERSION {
            return Err(format!(
                "expected version {API_VERSION} of its backend interface, found {version}"
            ));
        }
        let device = sys::ggml_backend_reg_dev_get(registry, 0);
        let known = &*device.cast::<Device>();
        let same = known.reg == registry.cast()
            && known.iface.supports_op.is_some()
            && known.iface.supports_buft.is_some()
            && known.iface.get_host_buffer_type.is_none()
            && known.iface.offload_op.is_none()
            && known.iface.event_synchronize.is_none();
        if !same {
            return Err("its devices have another layout".to_owned());
        }
        let backend = sys::ggml_backend_cpu_init();
        let known = &*backend.cast::<Backend>();
        let same = known.device == device.cast()
            && known.iface.synchronize.is_none()
            && known.iface.graph_plan_create.is_some()
            && known.iface.graph_plan_update.is_none()
            && known.iface.graph_compute.is_some()
            && known.iface.graph_optimize.is_none();
        sys::ggml_backend_free(backend);
        if !same {
            return Err("its backends have another layout".to_owned());
        }
    }
    check_custom_params()
}

fn check_custom_params() -> Result<(), String> {
    unsafe extern "C" fn nothing(_: *mut sys::ggml_tensor, _: c_int, _: c_int, _: *mut c_void) {}
    let mut user_data = 0_u8;
    let ours = CustomParams {
        function: nothing,
        n_tasks: ALL_THREADS,
        user_data: (&raw mut user_data).cast(),
    };
    // SAFETY: the context has room for a few tensors without data; the node is read before it is freed.
    let theirs = unsafe {
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: 4 * (sys::ggml_tensor_overhead() + 64),
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        });
        let node = sys::ggml_custom_4d(
            context,
            sys::GGML_TYPE_F32,
            1,
            1,
            1,
            1,
            std::ptr::null_mut(),
            0,
            Some(nothing),
            ALL_THREADS,
            ours.user_data,
        );
        let params = ((*node).op, (*node).op_params);
        sys::ggml_free(context);
        params
    };
    let same = theirs.0 == sys::GGML_OP_CUSTOM
        && [0, 1, 2, 4, 5]
            .iter()
            .all(|&i| theirs.1[i] == ours.to_words()[i]);
    same.then_some(())
        .ok_or_else(|| "its custom operations have another layout".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_library_matches_the_declarations() {
        check().unwrap();
    }
}
