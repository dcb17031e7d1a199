/*
 * static_stubs.c: what Debian's libzmq.a refers to and the shim never uses.
 *
 * That archive is built with PGM, NORM and GSSAPI, none of which has a static
 * library.  The names below let it link.  They are only part of the static
 * shim, and weak: a real library on the link line wins.
 *
 * Two of them run in every program: a context starts and ends PGM, and takes
 * anything but TRUE for a broken system.  The others are behind transports and
 * a mechanism that the shim never asks for; they fail as their own library
 * would.  Arguments are left out where nothing reads them: under the calling
 * conventions of Linux the caller places and removes them.
 */
#include <stdint.h>
#include <string.h>

#define PGM_TRUE             1
#define PGM_IO_STATUS_ERROR  0
#define GSS_FAILURE          ((uint32_t)13 << 16) /* RFC 2744: GSS_S_FAILURE */
#define NORM_TYPE_NONE       0
#define NORM_DESCRIPTOR_NONE (-1)

#define STUB(type, name, result)                                               \
	type name(void);                                                       \
	__attribute__((weak)) type name(void)                                  \
	{                                                                      \
		return result;                                                 \
	}
#define STUB_VOID(name)                                                        \
	void name(void);                                                       \
	__attribute__((weak)) void name(void)                                  \
	{                                                                      \
	}
#define STUB_POINTER(name)                                                     \
	extern const void *const name;                                         \
	__attribute__((weak)) const void *const name = NULL;

/* PGM (OpenPGM 5): pgm:// and epgm:// */
STUB(int, pgm_init, PGM_TRUE)
STUB(int, pgm_shutdown, PGM_TRUE)
STUB(int, pgm_bind3, 0)
STUB(int, pgm_close, 0)
STUB(int, pgm_connect, 0)
STUB(int, pgm_getaddrinfo, 0)
STUB(int, pgm_getsockopt, 0)
STUB(int, pgm_gsi_create_from_data, 0)
STUB(int, pgm_recvmsgv, PGM_IO_STATUS_ERROR)
STUB(int, pgm_send, PGM_IO_STATUS_ERROR)
STUB(int, pgm_setsockopt, 0)
STUB(int, pgm_socket, 0)
STUB_VOID(pgm_error_free)
STUB_VOID(pgm_free)
STUB_VOID(pgm_freeaddrinfo)

/* GSSAPI (RFC 2744): the GSSAPI mechanism */
STUB_POINTER(GSS_C_NT_HOSTBASED_SERVICE)
STUB_POINTER(GSS_C_NT_USER_NAME)
STUB(uint32_t, gss_accept_sec_context, GSS_FAILURE)
STUB(uint32_t, gss_acquire_cred, GSS_FAILURE)
STUB(uint32_t, gss_delete_sec_context, GSS_FAILURE)
STUB(uint32_t, gss_display_name, GSS_FAILURE)
STUB(uint32_t, gss_import_name, GSS_FAILURE)
STUB(uint32_t, gss_init_sec_context, GSS_FAILURE)
STUB(uint32_t, gss_release_buffer, GSS_FAILURE)
STUB(uint32_t, gss_release_cred, GSS_FAILURE)
STUB(uint32_t, gss_release_name, GSS_FAILURE)
STUB(uint32_t, gss_unwrap, GSS_FAILURE)
STUB(uint32_t, gss_wrap, GSS_FAILURE)

/* NORM (RFC 5740): norm:// */
STUB_POINTER(NORM_INSTANCE_INVALID)
STUB_POINTER(NORM_OBJECT_INVALID)
STUB_POINTER(NORM_SESSION_INVALID)
extern const uint32_t NORM_NODE_ANY;
__attribute__((weak)) const uint32_t NORM_NODE_ANY = UINT32_MAX;
STUB(void *, NormCreateInstance, NULL)
STUB(void *, NormCreateSession, NULL)
STUB_VOID(NormDestroyInstance)
STUB_VOID(NormDestroySession)
STUB(int, NormGetDescriptor, NORM_DESCRIPTOR_NONE)
STUB(_Bool, NormGetNextEvent, 0)
STUB(uint16_t, NormGetRandomSessionId, 0)
STUB(_Bool, NormIsUnicastAddress, 0)
STUB_VOID(NormNodeDelete)
STUB(int, NormObjectGetType, NORM_TYPE_NONE)
STUB(void *, NormObjectGetUserData, NULL)
STUB_VOID(NormObjectSetUserData)
STUB_VOID(NormSetCongestionControl)
STUB_VOID(NormSetDefaultSyncPolicy)
STUB_VOID(NormSetDefaultUnicastNack)
STUB_VOID(NormSetLoopback)
STUB(_Bool, NormSetMulticastInterface, 0)
STUB_VOID(NormSetRxPortReuse)
STUB(_Bool, NormSetTTL, 0)
STUB(_Bool, NormStartReceiver, 0)
STUB(_Bool, NormStartSender, 0)
STUB_VOID(NormStopInstance)
STUB_VOID(NormStopReceiver)
STUB_VOID(NormStopSender)
STUB_VOID(NormStreamFlush)
STUB(void *, NormStreamOpen, NULL)
STUB(_Bool, NormStreamRead, 0)
STUB(_Bool, NormStreamSeekMsgStart, 0)
STUB(unsigned, NormStreamWrite, 0)

/* libbsd; glibc has it from 2.38 on.  This one is used: it does the work. */
size_t strlcpy(char *to, const char *from, size_t to_bytes);
__attribute__((weak)) size_t
strlcpy(char *to, const char *from, size_t to_bytes)
{
	size_t bytes = strlen(from);
	if (to_bytes > 0) {
		size_t kept = bytes < to_bytes ? bytes : to_bytes - 1;
		memcpy(to, from, kept);
		to[kept] = '\0';
	}
	return bytes;
}
