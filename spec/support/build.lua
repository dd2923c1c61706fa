-- build.lua -- the folder of the build that is tested, as an absolute path: FPC_BUILD_DIR, else build/.
return assert(require("fpcache.core").system.realpath(os.getenv("FPC_BUILD_DIR") or "build"))
