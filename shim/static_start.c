/* static_start.c: name lookups without the image's modules. */
#include "shim/static_start.h"

#include <features.h>

#ifdef __GLIBC__
#include <nss.h>

void
static_start_prepare(void)
{
	/* These fail only for a database that does not exist. */
	__nss_configure_lookup("hosts", "files dns");
	__nss_configure_lookup("passwd", "files");
	__nss_configure_lookup("group", "files");
	__nss_configure_lookup("services", "files");
}
#else
/* Other C libraries have no modules to load. */
void
static_start_prepare(void)
{
}
#endif
