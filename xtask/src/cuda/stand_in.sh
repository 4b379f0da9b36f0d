#!/bin/sh
# Stands in for nvcc while Rust code is type-checked: build scripts want its version and files that exist, no kernel.
output='' folder=. kind=object source='' before=''
for word in "$@"; do
    case $before in
        -o | --output-file) output=$word ;;
        -odir | --output-directory) folder=$word ;;
    esac
    case $word in
        -V | --version)
            # Build scripts read the release from the fourth line.
            echo 'nvcc: stand-in without a compiler'
            echo 'It answers build scripts and writes empty files.'
            echo 'Made by `cargo xtask cuda-check`'
            echo 'Cuda compilation tools, release 13.0, V13.0.88'
            exit 0
            ;;
        -ptx | --ptx) kind=ptx ;;
        -lib | --lib) kind=archive ;;
        *.cu) source=$word ;;
    esac
    before=$word
done
if [ -z "$output" ]; then
    name=${source##*/}
    case $kind in
        ptx) output=$folder/${name%.cu}.ptx ;;
        *) output=$folder/${name%.cu}.o ;;
    esac
fi
case $kind in
    ptx) printf '.version 7.0\n.target sm_80\n.address_size 64\n' >"$output" ;;
    archive) printf '!<arch>\n' >"$output" ;;
    object) : >"$output" ;;
esac
