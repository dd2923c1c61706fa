# bash completion of fpcache.  It asks the program's own help, so that it always knows what the program knows.

# The commands: second words of the help's lines, "a|b" being two.
_fpcache_commands() {
    "$1" --help 2>/dev/null | sed -n 's/^  fpcache \([a-z][a-z|]*\).*/\1/p' | tr '|' '\n' | sort -u
}

# _fpcache_listed PROGRAM WORD...: the commands inside of that one.
_fpcache_listed() {
    "$@" --help 2>/dev/null | sed -n 's/^   \{0,1\}\([a-z][a-z-]*\)  .*/\1/p'
}

# _fpcache_options PROGRAM WORD...: the options that its help names.
_fpcache_options() {
    "$@" --help 2>/dev/null | sed -n 's/^ *\(-[a-z], \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' | sort -u
}

_fpcache() {
    local program=$1 word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} inner=
    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        case $word in
        -*) mapfile -t COMPREPLY < <(compgen -W "--help --version -e" -- "$word") ;;
        *)
            mapfile -t COMPREPLY < <(
                compgen -W "$(_fpcache_commands "$program")" -- "$word"
                compgen -f -X '!*.lua' -- "$word"
                compgen -d -- "$word"
            )
            ;;
        esac
        return
    fi
    case $command in
    admin | token | local)
        if [ "$COMP_CWORD" = 2 ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_fpcache_listed "$program" "$command")" -- "$word")
            return
        fi
        [ "$command" = local ] || inner=${COMP_WORDS[2]}
        ;;
    -*) return ;;
    esac
    case $word in
    -*) mapfile -t COMPREPLY < <(compgen -W "$(_fpcache_options "$program" "$command" ${inner:+"$inner"})" -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    esac
}

complete -o filenames -F _fpcache fpcache
