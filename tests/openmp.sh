# Prints -fopenmp if the compiler given as $1 can build and run a program with it.
dir=${TMPDIR:-/tmp}/vgs-openmp-$$
mkdir "$dir" || exit 0
echo 'int omp_get_max_threads(void); int main(void) { return omp_get_max_threads() < 1; }' > "$dir/t.c"
$1 -fopenmp "$dir/t.c" -o "$dir/t" 2> "$dir/log" && "$dir/t" && echo -fopenmp
rm -r "$dir"
